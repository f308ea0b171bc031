/**
 * CPU twins of the products: their definition, in f64.
 */
import { rowValues, type HostMatrix } from './host-matrix.js';

/** Arguments of {@link matmulCpu}; the same as of `matmul`, in host memory. */
export interface MatmulCpuArguments {
  /** Activations [at least firstXRow + xRows, columns]. */
  readonly x: Float32Array;
  readonly xRows: number;
  /** Weights [outputs, columns]. */
  readonly weights: HostMatrix;
  /** Result, element (m, n) at `yOffset + m * yStride + n`. */
  readonly y: Float32Array;
  readonly accumulate?: boolean;
  readonly firstXRow?: number;
  readonly yOffset?: number;
  readonly yStride?: number;
}

function dot(x: Float32Array, start: number, row: Float64Array): number {
  let sum = 0;
  for (let k = 0; k < row.length; k++) sum += (x[start + k] ?? 0) * (row[k] ?? 0);
  return sum;
}

/** `y[m, n] = sum over k of x[m, k] * weights[n, k]`, or `+=`. */
export function matmulCpu(args: MatmulCpuArguments): void {
  const { x, xRows, weights, y, accumulate = false, firstXRow = 0, yOffset = 0 } = args;
  const { rows, columns } = weights.layout;
  const yStride = args.yStride ?? rows;
  for (let n = 0; n < rows; n++) {
    const row = rowValues(weights, n);
    for (let m = 0; m < xRows; m++) {
      const at = yOffset + m * yStride + n;
      const sum = dot(x, (firstXRow + m) * columns, row);
      y[at] = (accumulate ? (y[at] ?? 0) : 0) + sum;
    }
  }
}

/** Arguments of {@link indexedMatmulCpu}; the same as of `indexedMatmul`, in host memory. */
export interface IndexedMatmulCpuArguments extends MatmulCpuArguments {
  /** Weight rows of one expert. */
  readonly rowsPerExpert: number;
  /** Expert of each row of the result. */
  readonly expertIds: Uint32Array;
  /** Consecutive rows of the result that share a row of x. Default: 1. */
  readonly xRowDivisor?: number;
}

/**
 * `y[i] = experts[expertIds[i]] * x[floor(i / xRowDivisor)]`; zeros where there is no such expert.
 */
export function indexedMatmulCpu(args: IndexedMatmulCpuArguments): void {
  const { x, xRows, weights, rowsPerExpert, expertIds, y, xRowDivisor = 1 } = args;
  const { accumulate = false, firstXRow = 0, yOffset = 0, yStride = rowsPerExpert } = args;
  const { rows, columns } = weights.layout;
  for (let i = 0; i < xRows; i++) {
    const firstRow = (expertIds[i] ?? rows) * rowsPerExpert;
    const xRow = firstXRow + Math.floor(i / xRowDivisor);
    for (let n = 0; n < rowsPerExpert; n++) {
      const known = firstRow + rowsPerExpert <= rows;
      const sum = known ? dot(x, xRow * columns, rowValues(weights, firstRow + n)) : 0;
      const at = yOffset + i * yStride + n;
      y[at] = (accumulate ? (y[at] ?? 0) : 0) + sum;
    }
  }
}

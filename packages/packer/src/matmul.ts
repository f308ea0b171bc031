/**
 * Records products of activations with weight matrices of any format.
 *
 * Each call becomes one dispatch where operands fit their bindings; otherwise one per segment of the
 * weights and per range of rows that fits. Nothing is allocated, and a repeated call finds its
 * pipelines and bind groups again.
 */
import { assertArgument, checkInteger, type Batch, type BufferRange } from '@vramkit/core';
import { bindingWindow, rowsPerDispatch } from './binding-window.js';
import { weightStep } from './kernels/codes.wgsl.js';
import { indexedMatmulKernel } from './kernels/indexed-matmul.wgsl.js';
import { registerMatmulKernel } from './kernels/matmul-register.wgsl.js';
import type { DeviceMatrix } from './matrix.js';

/** Arguments of {@link matmul}. Offsets and strides are in elements. */
export interface MatmulArguments {
  /** Activations, f32 [at least firstXRow + xRows, weights.columns], row-major. */
  readonly x: BufferRange;
  /** Rows of x to multiply; zero does nothing. */
  readonly xRows: number;
  /** Weights [outputs, columns]; the product is `x * transpose(weights)`. */
  readonly weights: DeviceMatrix;
  /** Result, f32; element (m, n) at `yOffset + m * yStride + n`. */
  readonly y: BufferRange;
  /** Adds to y instead of replacing it. Default: false. */
  readonly accumulate?: boolean;
  /** First row of x. Default: 0. */
  readonly firstXRow?: number;
  /** First element of the result. Default: 0. */
  readonly yOffset?: number;
  /** Elements from one row of the result to the next. Default: `weights.rows`. */
  readonly yStride?: number;
}

const WORKGROUP_SIZE = 32;

function checkResult(
  args: Pick<MatmulArguments, 'y' | 'xRows'>,
  layout: { readonly yOffset: number; readonly yStride: number; readonly outputs: number },
): void {
  const { yOffset, yStride, outputs } = layout;
  checkInteger('xRows', args.xRows);
  checkInteger('yOffset', yOffset);
  checkInteger('yStride', yStride, outputs);
  const end = yOffset + (args.xRows - 1) * yStride + outputs;
  assertArgument(
    args.xRows === 0 || end * 4 <= args.y.sizeBytes,
    `the result ends at element ${end} of a range of ${args.y.sizeBytes} B`,
    { end, rangeBytes: args.y.sizeBytes, yOffset, yStride },
  );
}

function checkActivations(x: BufferRange, rows: number, columns: number): void {
  assertArgument(
    rows * columns * 4 <= x.sizeBytes,
    `${rows} rows of ${columns} leave x of ${x.sizeBytes} B`,
    { rows, columns, rangeBytes: x.sizeBytes },
  );
}

/**
 * Records `y = x * transpose(weights)`, or `y +=`.
 * @throws VramError `invalid-argument` where an operand is too small for the shape; `unsupported`
 * where one row of x exceeds the binding limit; `disposed`.
 */
export function matmul(batch: Batch, args: MatmulArguments): void {
  const { x, xRows, weights, y, accumulate = false, firstXRow = 0, yOffset = 0 } = args;
  const { device, rows, columns, format, groupSize, segments } = weights;
  const yStride = args.yStride ?? rows;
  checkInteger('firstXRow', firstXRow);
  checkResult(args, { yOffset, yStride, outputs: rows });
  if (xRows === 0) return;
  checkActivations(x, firstXRow + xRows, columns);
  const steps = columns / weightStep({ format, groupSize }).elements;
  const tile = xRows === 1 ? { tileRows: 1, tileOutputs: 2 } : { tileRows: 4, tileOutputs: 4 };
  const chunk = rowsPerDispatch(device, xRows, [
    { range: x, rowElements: columns },
    { range: y, rowElements: yStride },
  ]);
  for (let first = 0; first < xRows; first += chunk) {
    const count = Math.min(chunk, xRows - first);
    const from = bindingWindow(device, x, (firstXRow + first) * columns, count * columns);
    for (const segment of segments) {
      const outputs = segment.rowCount;
      const firstY = yOffset + first * yStride + segment.firstRow;
      const to = bindingWindow(device, y, firstY, (count - 1) * yStride + outputs);
      const { codes, scales } = segment;
      batch.dispatch(registerMatmulKernel, {
        params: { format, groupSize, accumulate, ...tile, workgroupSize: WORKGROUP_SIZE },
        bindings: { x: from.range, codes, scales, y: to.range },
        uniforms: {
          xRows: count,
          outputs,
          steps,
          xBase: from.base / 4,
          yBase: to.base,
          yStride,
        },
        workgroups:
          Math.ceil(count / tile.tileRows) *
          Math.ceil(outputs / (WORKGROUP_SIZE * tile.tileOutputs)),
      });
    }
  }
}

/** Arguments of {@link indexedMatmul}. Offsets and strides are in elements. */
export interface IndexedMatmulArguments {
  /** Activations, f32 [at least firstXRow + ceil(xRows / xRowDivisor), weights.columns]. */
  readonly x: BufferRange;
  /** Rows of the result, one per expert id; zero does nothing. */
  readonly xRows: number;
  /** Weights of all experts, [experts * rowsPerExpert, columns]. */
  readonly weights: DeviceMatrix;
  /** Output features of one expert. */
  readonly rowsPerExpert: number;
  /** Expert of each row of the result, u32 [xRows], on the device. An unknown id gives zeros. */
  readonly expertIds: BufferRange;
  /** Consecutive rows of the result that share a row of x (experts per token). Default: 1. */
  readonly xRowDivisor?: number;
  /** Result, f32; element (i, n) at `yOffset + i * yStride + n`. */
  readonly y: BufferRange;
  /** Adds to y instead of replacing it. Default: false. */
  readonly accumulate?: boolean;
  /** First row of x. Default: 0. */
  readonly firstXRow?: number;
  /** First element of the result. Default: 0. */
  readonly yOffset?: number;
  /** Elements from one row of the result to the next. Default: `rowsPerExpert`. */
  readonly yStride?: number;
}

/**
 * Records `y[i] = x[floor(i / xRowDivisor)] * transpose(experts[expertIds[i]])`, or `y[i] +=`. The ids
 * are read on the device, so a router's choice needs no readback.
 * @throws VramError `invalid-argument` where an operand is too small for the shape or the weights are
 * not a whole number of experts; `unsupported` where one row exceeds the binding limit; `disposed`.
 */
export function indexedMatmul(batch: Batch, args: IndexedMatmulArguments): void {
  const { x, xRows, weights, rowsPerExpert, expertIds, y, xRowDivisor = 1 } = args;
  const { accumulate = false, firstXRow = 0, yOffset = 0, yStride = rowsPerExpert } = args;
  const { device, rows, columns, format, groupSize, segments } = weights;
  checkInteger('rowsPerExpert', rowsPerExpert, 1, rows);
  checkInteger('xRowDivisor', xRowDivisor, 1);
  checkInteger('firstXRow', firstXRow);
  assertArgument(rows % rowsPerExpert === 0, `${rows} rows are not experts of ${rowsPerExpert}`);
  checkResult(args, { yOffset, yStride, outputs: rowsPerExpert });
  if (xRows === 0) return;
  checkActivations(x, firstXRow + Math.ceil(xRows / xRowDivisor), columns);
  const steps = columns / weightStep({ format, groupSize }).elements;
  const tile = { tileOutputs: 2, workgroupSize: WORKGROUP_SIZE };
  const fit = rowsPerDispatch(device, xRows, [
    { range: x, rowElements: columns / xRowDivisor },
    { range: y, rowElements: yStride },
    { range: expertIds, rowElements: 1 },
  ]);
  // A range of rows starts on a row of x, so that the division in the kernel stays exact.
  const chunk = fit >= xRows ? xRows : Math.max(xRowDivisor, fit - (fit % xRowDivisor));
  for (let first = 0; first < xRows; first += chunk) {
    const count = Math.min(chunk, xRows - first);
    const xFirst = firstXRow + first / xRowDivisor;
    const xCount = Math.ceil(count / xRowDivisor);
    const from = bindingWindow(device, x, xFirst * columns, xCount * columns);
    const ids = bindingWindow(device, expertIds, first, count);
    const yFirst = yOffset + first * yStride;
    const to = bindingWindow(device, y, yFirst, (count - 1) * yStride + rowsPerExpert);
    for (const segment of segments) {
      const { codes, scales } = segment;
      batch.dispatch(indexedMatmulKernel, {
        params: { format, groupSize, accumulate, ...tile },
        bindings: { x: from.range, codes, scales, expertIds: ids.range, y: to.range },
        uniforms: {
          xRows: count,
          xRowDivisor,
          outputs: rowsPerExpert,
          experts: rows / rowsPerExpert,
          segmentFirst: segment.firstRow,
          segmentRows: segment.rowCount,
          steps,
          xBase: from.base / 4,
          idBase: ids.base,
          yBase: to.base,
          yStride,
        },
        workgroups: count * Math.ceil(rowsPerExpert / (WORKGROUP_SIZE * tile.tileOutputs)),
      });
    }
  }
}

/** Definition of merge-partials: partial softmax results of one row become one; sums in f64. */
import { at } from './host-kv.cpu.js';

/**
 * Merges `[rows, partitions, headDim + 4]`, the last four of each (maximum, sum, 0, 0); gives
 * `[rows, headDim]`. A row of empty partitions (sum 0) gives zeros.
 */
export function mergePartials(
  partials: Float32Array,
  shape: { readonly rows: number; readonly partitions: number; readonly headDim: number },
): Float32Array {
  const { rows, partitions, headDim } = shape;
  const width = headDim + 4;
  const output = new Float32Array(rows * headDim);
  for (let row = 0; row < rows; row++) {
    const starts = Array.from({ length: partitions }, (_, p) => (row * partitions + p) * width);
    const top = starts.reduce(
      (best, start) => Math.max(best, at(partials, start + headDim)),
      -1e300,
    );
    const weights = starts.map((start) => Math.exp(at(partials, start + headDim) - top));
    const dot = (element: number): number =>
      starts.reduce((sum, start, p) => sum + at(weights, p) * at(partials, start + element), 0);
    const total = dot(headDim + 1);
    for (let d = 0; d < headDim; d++) output[row * headDim + d] = total === 0 ? 0 : dot(d) / total;
  }
  return output;
}

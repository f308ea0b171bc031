/** Definition of query-moments: sums of outer products and of queries; in f64. */
import { at } from './host-kv.cpu.js';
import type { HostRows } from './write-kv.cpu.js';

/** Adds to `moments`, `[heads, headDim + 1, headDim]`. */
export function addQueryMoments(
  queries: HostRows,
  shape: { readonly tokens: number; readonly heads: number; readonly headDim: number },
  moments: Float32Array,
): void {
  const { tokens, heads, headDim } = shape;
  for (let head = 0; head < heads; head++) {
    for (let row = 0; row <= headDim; row++) {
      for (let column = 0; column < headDim; column++) {
        let sum = 0;
        for (let token = 0; token < tokens; token++) {
          const start = queries.offset + token * queries.rowStride + head * headDim;
          const factor = row === headDim ? 1 : at(queries.data, start + row);
          sum += factor * at(queries.data, start + column);
        }
        const to = (head * (headDim + 1) + row) * headDim + column;
        moments[to] = at(moments, to) + sum;
      }
    }
  }
}

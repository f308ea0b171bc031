/** Definition of receive-attention: weights that tokens receive, added up; in f64. */
import { at, type HostKv } from './host-kv.cpu.js';
import { attentionWeights } from './attend.cpu.js';
import type { HostRows } from './write-kv.cpu.js';

/** Queries of one sequence in one layer: query i sees slots 0 .. contextLength + i. */
export interface HostQueries {
  readonly layer: number;
  readonly queries: HostRows;
  readonly heads: number;
  /** All slots of the sequence in logical order, those of the queries included. */
  readonly slots: readonly number[];
  readonly contextLength: number;
  /** First query that counts. */
  readonly firstQuery: number;
  readonly scale: number;
}

/** Adds to `sums`, `[tokens, kvHeads]`. */
export function receiveAttention(kv: HostKv, request: HostQueries, sums: Float32Array): void {
  const { headDim, kvHeads } = kv.layout;
  const { heads, queries, slots, contextLength, layer, scale } = request;
  const ratio = heads / kvHeads;
  const totals = Float64Array.from(sums);
  for (let query = request.firstQuery; query < slots.length - contextLength; query++) {
    const visible = slots.slice(0, contextLength + query + 1);
    for (let head = 0; head < heads; head++) {
      const start = queries.offset + query * queries.rowStride + head * headDim;
      const vector = queries.data.subarray(start, start + headDim);
      const kvHead = Math.floor(head / ratio);
      const weights = attentionWeights(kv, visible, { layer, kvHead, query: vector, scale });
      weights.forEach((weight, token) => {
        totals[token * kvHeads + kvHead] = at(totals, token * kvHeads + kvHead) + weight / ratio;
      });
    }
  }
  sums.set(totals);
}

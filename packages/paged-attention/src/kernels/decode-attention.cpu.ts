/** Definition of decode-attention, merge included: one query per sequence over its block table. */
import { attend, slotsOf } from './attend.cpu.js';
import type { HostKv } from './host-kv.cpu.js';
import type { HostRows } from './write-kv.cpu.js';

/** Gives `[sequences, heads, headDim]`. */
export function decodeAttention(
  kv: HostKv,
  request: {
    readonly layer: number;
    readonly queries: HostRows;
    readonly heads: number;
    readonly blockTables: Uint32Array;
    readonly tableStride: number;
    readonly lengths: Uint32Array;
    readonly scale: number;
  },
): Float32Array {
  const { headDim, kvHeads, blockSize } = kv.layout;
  const { heads, queries, layer, scale, tableStride } = request;
  const output = new Float32Array(request.lengths.length * heads * headDim);
  request.lengths.forEach((length, sequence) => {
    const table = request.blockTables.subarray(sequence * tableStride);
    const slots = slotsOf(table, length, blockSize);
    for (let head = 0; head < heads; head++) {
      const start = queries.offset + sequence * queries.rowStride + head * headDim;
      const query = queries.data.subarray(start, start + headDim);
      const kvHead = Math.floor(head / (heads / kvHeads));
      const row = attend(kv, slots, { layer, kvHead, query, scale });
      output.set(row, (sequence * heads + head) * headDim);
    }
  });
  return output;
}

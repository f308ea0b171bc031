/** Definition of the prefill kernels: causal attention of a chunk of one sequence. */
import { attend, slotsOf } from './attend.cpu.js';
import type { HostKv } from './host-kv.cpu.js';
import type { HostRows } from './write-kv.cpu.js';

/** Gives `[tokens, heads, headDim]`; token i sees slots 0 .. contextLength + i. */
export function prefillAttention(
  kv: HostKv,
  request: {
    readonly layer: number;
    readonly queries: HostRows;
    readonly heads: number;
    readonly blockTable: Uint32Array;
    readonly tokens: number;
    readonly contextLength: number;
    readonly scale: number;
  },
): Float32Array {
  const { headDim, kvHeads, blockSize } = kv.layout;
  const { heads, queries, layer, scale, tokens, contextLength } = request;
  const slots = slotsOf(request.blockTable, contextLength + tokens, blockSize);
  const output = new Float32Array(tokens * heads * headDim);
  for (let token = 0; token < tokens; token++) {
    const visible = slots.slice(0, contextLength + token + 1);
    for (let head = 0; head < heads; head++) {
      const start = queries.offset + token * queries.rowStride + head * headDim;
      const query = queries.data.subarray(start, start + headDim);
      const kvHead = Math.floor(head / (heads / kvHeads));
      const row = attend(kv, visible, { layer, kvHead, query, scale });
      output.set(row, (token * heads + head) * headDim);
    }
  }
  return output;
}

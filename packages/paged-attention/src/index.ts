/** Paged K and V on the device, and the kernels that write, read, move and attend. */
export type { DecodeRequest } from './decode.js';
export {
  bytesPerBlock,
  SKIPPED_SLOT,
  type KvDType,
  type KvLayout,
  type KvShape,
} from './kv-layout.js';
export type { BlockPair, SlotMoves } from './moves.js';
export { createPagedKvCache, PagedKvCache, type PagedKvCacheOptions } from './paged-kv-cache.js';
export type { PrefillRequest } from './prefill.js';
export type { TokenKv, TokenNorms } from './readback.js';
export type { StridedRows } from './strided-rows.js';
export type { WriteRequest } from './write.js';

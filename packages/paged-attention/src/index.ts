/** Paged K and V on the device, and the kernels that write, read, move and attend. */
export {
  AttentionRecord,
  type AttentionRecordOptions,
  type RecordedStep,
} from './attention-record.js';
export type { QuerySpan } from './attention-windows.js';
export type { NormMean } from './block-means.js';
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
export { QueryMoments, type QueryMomentsOptions, type QueryStatistics } from './query-moments.js';
export type { TokenKv, TokenNorms } from './readback.js';
export type { DecodeReceived, PrefillReceived } from './received-attention.js';
export {
  createStaticKvCache,
  StaticKvCache,
  type KvPair,
  type StaticKvCacheOptions,
} from './static-kv-cache.js';
export type { StridedRows } from './strided-rows.js';
export type { WriteRequest } from './write.js';

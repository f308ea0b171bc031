/**
 * Paged KV cache bookkeeping: block pool, block tables, slot mappings and sequences. Pure, no GPU.
 */
export { BlockPool, NULL_BLOCK } from './block-pool.js';
export type { BlockPoolOptions } from './block-pool.js';
export { BlockTable } from './block-table.js';
export type { BlockTableView } from './block-table.js';
export type { TokenMoves } from './compaction.js';
export type { IndexArray, IndexList } from './index-array.js';
export { KvSequences } from './kv-sequences.js';
export type { SequenceFork } from './kv-sequences.js';
export { SlotMapping, writeBlockTable, writeSlots } from './slot-mapping.js';
export type { BlockCopy } from './slot-mapping.js';

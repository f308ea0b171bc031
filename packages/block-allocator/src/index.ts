/**
 * Paged KV cache bookkeeping: block pool, block tables, slot mappings, sequences, prefix cache and
 * the manager that a scheduler asks. Pure, no GPU.
 */
export {
  digestText,
  fastHasher,
  packBlockKey,
  sha256Hasher,
  unpackBlockKey,
} from './block-hasher.js';
export type { BlockHasher } from './block-hasher.js';
export { BlockPool, MAX_RANK, NULL_BLOCK } from './block-pool.js';
export type { BlockKeeper, BlockPoolOptions } from './block-pool.js';
export { BlockTable } from './block-table.js';
export type { BlockTableState, BlockTableView } from './block-table.js';
export type { CacheMetrics } from './cache-metrics.js';
export type { TokenMoves } from './compaction.js';
export type { ContentKeys, ContentSpan } from './content-keys.js';
export { PrefixReplica } from './events.js';
export type { PrefixEvent } from './events.js';
export type { IndexArray, IndexList } from './index-array.js';
export { KvCacheManager } from './kv-cache-manager.js';
export type {
  AllocateOptions,
  FarMatch,
  GroupMappings,
  KvCacheManagerOptions,
  KvCacheState,
  ManagedFork,
} from './kv-cache-options.js';
export type { KvGroup } from './kv-groups.js';
export { KvSequences } from './kv-sequences.js';
export type { KvSequencesState, SequenceFork } from './kv-sequences.js';
export { KvSwap } from './kv-swap.js';
export type { KvSwapOptions, SwapMove } from './kv-swap.js';
export { KvTiers } from './kv-tiers.js';
export type {
  FarTier,
  FarTierOptions,
  KvTiersOptions,
  TierMove,
  TierTransfer,
} from './kv-tiers.js';
export { PrefixCache } from './prefix-cache.js';
export type { PrefixCacheOptions, PrefixCacheState } from './prefix-cache.js';
export type { SequenceContentState } from './sequence-content.js';
export { SlotMapping, writeBlockTable, writeSlots } from './slot-mapping.js';
export type { BlockCopy } from './slot-mapping.js';

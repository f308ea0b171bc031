/**
 * KV eviction policies: the contract, its four plug points, the policies, and binding one to a
 * cache. Replacement policies: who leaves a cache whose contents exist elsewhere.
 */
export { meanOverLayersAndHeads, votesWithinBudgets } from './aggregation.js';
export { checkedPolicy } from './checked.js';
export { bindPolicy, combine, MIN_BUDGET_BLOCKS } from './combine.js';
export type { KvCacheCapabilities, KvPolicyParts } from './combine.js';
export { expectedAttention, expectedInfluence } from './kv/expected-attention.js';
export type { ExpectedAttentionOptions } from './kv/expected-attention.js';
export { averageRotation, rotateQueries } from './kv/expected-queries.js';
export type { AverageRotation, PositionSpan } from './kv/expected-queries.js';
export { full } from './kv/full.js';
export type { FullOptions } from './kv/full.js';
export { h2o } from './kv/h2o.js';
export { inverseKeyNorm } from './kv/inverse-key-norm.js';
export { keyDiff } from './kv/key-diff.js';
export { lagKv, lagRank } from './kv/lag-kv.js';
export type { LagKvOptions } from './kv/lag-kv.js';
export { pagedEviction, valueOverKeyNorm } from './kv/paged-eviction.js';
export type { PagedEvictionOptions } from './kv/paged-eviction.js';
export { pyramidBudgets, pyramidKv } from './kv/pyramid-kv.js';
export type { PyramidBudgetsOptions, PyramidKvOptions } from './kv/pyramid-kv.js';
export { random } from './kv/random.js';
export type { RandomOptions } from './kv/random.js';
export { pooledAttention, snapKv } from './kv/snap-kv.js';
export type { SnapKvOptions } from './kv/snap-kv.js';
export { streamingLlm } from './kv/streaming-llm.js';
export type { StreamingLlmOptions } from './kv/streaming-llm.js';
export { tova } from './kv/tova.js';
export { valueNorm } from './kv/value-norm.js';
export type { KvBlockMean, KvBlocks, KvNeed, KvProgress, KvQueries, KvTokens } from './needs.js';
export type {
  KvAggregation,
  KvBlockScore,
  KvDeclaration,
  KvGranularity,
  KvPolicy,
  KvProtection,
  KvScore,
  KvTrigger,
  KvVictim,
  PositionRange,
} from './policy.js';
export { receivedAttention } from './received-attention.js';
export { scored } from './scored.js';
export type { ScoredOptions } from './scored.js';
export { kvPolicy, KV_POLICY_NAMES } from './registry.js';
export type { KvPolicyOptions } from './registry.js';
export { checkTokens, expectedQueries, gatherTokens, statistic } from './tokens.js';
export type { KvArrayNeed } from './tokens.js';
export { whenBlockFills } from './trigger.js';
export { arc } from './replacement/arc.js';
export { gdsf } from './replacement/gdsf.js';
export type { Replacement, ReplacementOptions } from './replacement/held-slots.js';
export { lfu } from './replacement/lfu.js';
export { lru } from './replacement/lru.js';
export { s3Fifo } from './replacement/s3-fifo.js';
export type { S3FifoOptions } from './replacement/s3-fifo.js';
export { sieve } from './replacement/sieve.js';
export { anyIds, denseIds } from './replacement/slot-index.js';
export type { SlotIndex } from './replacement/slot-index.js';
export { slru } from './replacement/slru.js';
export type { SlruOptions } from './replacement/slru.js';
export { everyTokens } from './wrappers/every-tokens.js';
export type { EveryTokensOptions } from './wrappers/every-tokens.js';
export { inChunks } from './wrappers/in-chunks.js';
export type { InChunksOptions } from './wrappers/in-chunks.js';
export { protectRanges } from './wrappers/protect-ranges.js';

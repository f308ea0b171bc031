/**
 * KV eviction policies: the contract, its four plug points, the policies, and binding one to a
 * cache.
 */
export { meanOverLayersAndHeads } from './aggregation.js';
export { checkedPolicy } from './checked.js';
export { bindPolicy, combine, MIN_BUDGET_BLOCKS } from './combine.js';
export type { KvCacheCapabilities, KvPolicyParts } from './combine.js';
export { full } from './kv/full.js';
export type { FullOptions } from './kv/full.js';
export { pagedEviction, valueOverKeyNorm } from './kv/paged-eviction.js';
export type { PagedEvictionOptions } from './kv/paged-eviction.js';
export { streamingLlm } from './kv/streaming-llm.js';
export type { StreamingLlmOptions } from './kv/streaming-llm.js';
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
export type { ScoredOptions } from './scored.js';
export { kvPolicy, KV_POLICY_NAMES } from './registry.js';
export type { KvPolicyOptions } from './registry.js';
export { checkTokens, expectedQueries, gatherTokens, statistic } from './tokens.js';
export type { KvArrayNeed } from './tokens.js';
export { whenBlockFills } from './trigger.js';

/**
 * What tests of policies share: the conformance suites of KV and replacement policies, token data,
 * and the definition of what a cache measures.
 *
 * A subpath of its own (`@vramkit/eviction/testing`), never imported by shipped code.
 */
export {
  describeKvPolicy,
  type KvPolicyFactory,
  type KvPolicySuiteOptions,
} from './testing/kv-policy-suite.js';
export { measureTokens, type PlainKv } from './testing/measure-tokens.js';
export { randomTokens, type RandomTokensOptions } from './testing/random-tokens.js';
export { describeReplacementPolicy, type ReplacementFactory } from './testing/replacement-suite.js';

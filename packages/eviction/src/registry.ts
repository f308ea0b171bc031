/**
 * Policies by name, for command lines and configuration files.
 */
import { fail } from '@vramkit/core';
import { expectedAttention, type ExpectedAttentionOptions } from './kv/expected-attention.js';
import { full } from './kv/full.js';
import { h2o } from './kv/h2o.js';
import { inverseKeyNorm } from './kv/inverse-key-norm.js';
import { keyDiff } from './kv/key-diff.js';
import { lagKv, type LagKvOptions } from './kv/lag-kv.js';
import { pagedEviction, type PagedEvictionOptions } from './kv/paged-eviction.js';
import { pyramidKv, type PyramidKvOptions } from './kv/pyramid-kv.js';
import { random, type RandomOptions } from './kv/random.js';
import { snapKv } from './kv/snap-kv.js';
import { streamingLlm, type StreamingLlmOptions } from './kv/streaming-llm.js';
import { tova } from './kv/tova.js';
import { valueNorm } from './kv/value-norm.js';
import type { KvPolicy } from './policy.js';

/** Options of all policies; each reads its own and ignores the others. */
export type KvPolicyOptions = StreamingLlmOptions &
  RandomOptions &
  PagedEvictionOptions &
  PyramidKvOptions &
  ExpectedAttentionOptions &
  LagKvOptions;

const FACTORIES: Readonly<Record<string, (options: KvPolicyOptions) => KvPolicy>> = {
  full,
  random,
  streamingLlm,
  inverseKeyNorm,
  valueNorm,
  keyDiff,
  pagedEviction,
  h2o,
  tova,
  snapKv,
  pyramidKv,
  expectedAttention,
  lagKv,
};

/** The names that {@link kvPolicy} knows. */
export const KV_POLICY_NAMES: readonly string[] = /* @__PURE__ */ Object.keys(FACTORIES);

/**
 * The policy of a name. Case and hyphens do not matter: `paged-eviction` is `pagedEviction`.
 * @throws VramError `not-found` listing the known names; `invalid-argument` as the policy's
 *   factory.
 */
export function kvPolicy(name: string, options: KvPolicyOptions): KvPolicy {
  const plain = (text: string): string => text.replaceAll('-', '').toLowerCase();
  const known = KV_POLICY_NAMES.find((each) => plain(each) === plain(name));
  const factory = known === undefined ? undefined : FACTORIES[known];
  if (factory === undefined) {
    fail('not-found', `there is no KV policy '${name}'; known: ${KV_POLICY_NAMES.join(', ')}`, {
      name,
      known: KV_POLICY_NAMES,
    });
  }
  return factory(options);
}

/**
 * Putting policies together: four plug points become a {@link KvPolicy}, and a policy meets a
 * cache.
 *
 * What is wrong with a combination is found here, when it is built: a budget too small for the
 * protections, a block size that differs, a need that the cache cannot measure. During generation
 * only data can be wrong.
 */
import { assertInvariant, checkInteger, fail } from '@vramkit/core';
import { meanOverLayersAndHeads } from './aggregation.js';
import { checkedPolicy } from './checked.js';
import { decide } from './decide.js';
import type { KvNeed, KvTokens } from './needs.js';
import type {
  KvAggregation,
  KvDeclaration,
  KvPolicy,
  KvProtection,
  KvScore,
  KvTrigger,
} from './policy.js';
import { protectedBlocks } from './protection.js';
import { checkTokens } from './tokens.js';
import { whenBlockFills } from './trigger.js';

/** The fewest blocks of a budget: one at the front, one at the back, one to choose. */
export const MIN_BUDGET_BLOCKS = 3;

/** The parts of a policy. */
export interface KvPolicyParts {
  /** Name, for messages and reports. */
  readonly name: string;
  /** Tokens that may stay; rounded down to whole blocks. At least three blocks. */
  readonly budgetTokens: number;
  /** Tokens of a block. */
  readonly blockSize: number;
  /** Importance of each token in each layer and KV head. */
  readonly score: KvScore;
  /** One score per token. Default: {@link meanOverLayersAndHeads}. */
  readonly aggregation?: KvAggregation;
  /** When a decode step evicts. Default: {@link whenBlockFills}. */
  readonly trigger?: KvTrigger;
  /** What is never evicted. */
  readonly protect: KvProtection;
}

/**
 * A policy that drops the lowest token scores at prefill and the block of lowest mean at decode.
 * @throws VramError `invalid-argument` where the budget is below three blocks or below what is
 *   protected.
 */
export function combine(parts: KvPolicyParts): KvPolicy {
  const { name, score, protect } = parts;
  const { aggregation = meanOverLayersAndHeads, trigger = whenBlockFills } = parts;
  const blockSize = checkInteger('blockSize', parts.blockSize, 1);
  const budgetTokens = checkBudget({ ...parts, blockSize });
  return decide({
    name,
    needs: score.needs,
    attentionQueries: score.attentionQueries,
    granularity: { prefill: 'token', decode: 'block' },
    blockSize,
    budgetTokens,
    protect,
    blockScore: score.blockScore,
    // Another aggregation is another number.
    blockMean: aggregation === meanOverLayersAndHeads ? score.blockMean : undefined,
    scoreTokens(tokens: KvTokens) {
      checkTokens(tokens);
      const perHead = new Float64Array(tokens.tokenCount * tokens.layers * tokens.kvHeads);
      score.score(tokens, perHead);
      const scores = aggregation(perHead, tokens);
      assertInvariant(
        scores.length === tokens.tokenCount && scores.every(Number.isFinite),
        `policy '${name}': ${scores.length} scores of ${tokens.tokenCount} tokens, or not finite`,
        { name, scores: scores.length, tokenCount: tokens.tokenCount },
      );
      return scores;
    },
    mustEvict: (progress) => trigger(progress, budgetTokens),
  });
}

/**
 * The budget in whole blocks, tokens.
 * @throws VramError `invalid-argument` where it is below three blocks or below what is protected.
 */
export function checkBudget(
  policy: Pick<KvDeclaration, 'name' | 'budgetTokens' | 'blockSize' | 'protect'>,
): number {
  const { name, budgetTokens, blockSize, protect } = policy;
  checkInteger('budgetTokens', budgetTokens, 1);
  checkInteger('firstTokens', protect.firstTokens);
  checkInteger('lastTokens', protect.lastTokens);
  for (const { start, end } of protect.ranges ?? [])
    checkInteger('end', end, checkInteger('start', start));
  const budgetBlocks = Math.floor(budgetTokens / blockSize);
  const neededBlocks = Math.max(MIN_BUDGET_BLOCKS, protectedBlocks(protect, blockSize));
  if (budgetBlocks < neededBlocks) {
    fail(
      'invalid-argument',
      `policy '${name}': a budget of ${budgetTokens} is ${budgetBlocks} blocks of ${blockSize}; ` +
        `at least ${neededBlocks} blocks (${neededBlocks * blockSize} tokens) are needed`,
      { policy: name, budgetTokens, blockSize, budgetBlocks, neededBlocks },
    );
  }
  return budgetBlocks * blockSize;
}

/** What a cache can measure for policies. */
export interface KvCacheCapabilities {
  /** Tokens of a block. */
  readonly blockSize: number;
  /** Needs that the cache can fill. */
  readonly provides: readonly KvNeed[];
  /** Most queries whose attention it can sum: 0 for none, `Infinity` for all. */
  readonly attentionQueries: number;
}

/**
 * The policy, for use with a cache: every decision is checked, so that a policy which returns a
 * protected or foreign token or block gives an `invariant` error before anything is evicted.
 * @throws VramError `unsupported` where the cache cannot measure what the policy needs,
 *   `invalid-argument` where block sizes differ.
 */
export function bindPolicy(policy: KvPolicy, cache: KvCacheCapabilities): KvPolicy {
  const missing = policy.needs.filter((need) => !cache.provides.includes(need));
  if (missing.length > 0) {
    const provided = cache.provides.join(', ') || 'nothing';
    fail(
      'unsupported',
      `policy '${policy.name}' needs ${missing.join(', ')}; the cache provides ${provided}`,
      { policy: policy.name, missing, provides: cache.provides },
    );
  }
  if (policy.attentionQueries > cache.attentionQueries) {
    fail(
      'unsupported',
      `policy '${policy.name}' needs the attention of ${policy.attentionQueries} queries; ` +
        `the cache sums ${cache.attentionQueries}`,
      {
        policy: policy.name,
        attentionQueries: policy.attentionQueries,
        provided: cache.attentionQueries,
      },
    );
  }
  if (policy.blockSize !== cache.blockSize) {
    fail(
      'invalid-argument',
      `policy '${policy.name}' has blocks of ${policy.blockSize} tokens, ` +
        `the cache has blocks of ${cache.blockSize}`,
      { policy: policy.name, blockSize: policy.blockSize, cacheBlockSize: cache.blockSize },
    );
  }
  return checkedPolicy(policy);
}

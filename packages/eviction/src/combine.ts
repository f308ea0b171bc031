/**
 * Putting policies together: four plug points become a {@link KvPolicy}, and a policy meets a
 * cache.
 *
 * What is wrong with a combination is found here, when it is built: a budget too small for the
 * protections, a block size that differs, a need that the cache cannot measure. During generation
 * only data can be wrong.
 *
 * Selection at prefill drops the lowest scores among the evictable tokens; at decode it takes the
 * lowest mean among the evictable full blocks. Equal scores: the lower index goes first, since the
 * older token is the one that has been read longest.
 */
import { assertInvariant, checkInteger, fail } from '@vramkit/core';
import { checkedPolicy } from './checked.js';
import { evictableTokens, protectedBlocks } from './protection.js';
import type {
  KvAggregation,
  KvBlocks,
  KvNeed,
  KvPolicy,
  KvProtection,
  KvScore,
  KvTokens,
  KvTrigger,
  KvVictim,
} from './policy.js';
import { checkTokens } from './tokens.js';

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
  /** One score per token. */
  readonly aggregation: KvAggregation;
  /** When a decode step evicts. */
  readonly trigger: KvTrigger;
  /** What is never evicted. */
  readonly protect: KvProtection;
}

/**
 * A policy that drops the lowest token scores at prefill and the block of lowest mean at decode.
 * @throws VramError `invalid-argument` where the budget is below three blocks or below what is
 *   protected.
 */
export function combine(parts: KvPolicyParts): KvPolicy {
  const { name, score, aggregation, trigger, protect } = parts;
  const blockSize = checkInteger('blockSize', parts.blockSize, 1);
  const budgetTokens = checkBudget(parts);

  const scoreTokens = (tokens: KvTokens): Float64Array => {
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
  };

  return {
    name,
    needs: score.needs,
    attentionQueries: score.attentionQueries,
    granularity: { prefill: 'token', decode: 'block' },
    blockSize,
    budgetTokens,
    protect,
    blockScore: score.blockScore,
    scoreTokens,
    selectTokens(tokens) {
      const scores = scoreTokens(tokens);
      const target = budgetTokens + (tokens.tokenCount % blockSize);
      const excess = Math.max(0, tokens.tokenCount - target);
      const { start, end } = evictableTokens(protect, tokens.tokenCount, blockSize);
      return withoutLowest(scores, start, end, excess);
    },
    scoreBlocks(tokens) {
      const scores = scoreTokens(tokens);
      const means = new Float64Array(Math.floor(tokens.tokenCount / blockSize));
      return means.map((_, block) =>
        mean(scores.subarray(block * blockSize, (block + 1) * blockSize)),
      );
    },
    selectVictim(blocks) {
      checkBlocks(blocks, blockSize);
      if (!trigger(blocks, budgetTokens)) return undefined;
      return lowestBlock(blocks, protect, blockSize);
    },
  };
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

function checkBudget({ name, budgetTokens, blockSize, protect }: KvPolicyParts): number {
  checkInteger('budgetTokens', budgetTokens, 1);
  checkInteger('firstTokens', protect.firstTokens);
  checkInteger('lastTokens', protect.lastTokens);
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

function checkBlocks(blocks: KvBlocks, blockSize: number): void {
  const full = Math.floor(blocks.cachedTokenCount / blockSize);
  if (blocks.scores.length !== full) {
    fail('invalid-argument', `${blocks.scores.length} scores for ${full} full blocks`, {
      scores: blocks.scores.length,
      fullBlocks: full,
    });
  }
  for (let block = 0; block < full; block++) {
    const score = blocks.scores[block];
    if (!Number.isFinite(score)) {
      fail('invalid-argument', `the score of block ${block} is ${score}`, {
        block,
        score: String(score),
      });
    }
  }
}

/** Indices of all scores but the `count` lowest in `[start, end)`, ascending. */
function withoutLowest(
  scores: Float64Array,
  start: number,
  end: number,
  count: number,
): Uint32Array {
  const order = Uint32Array.from({ length: end - start }, (_, index) => start + index);
  // Finite numbers subtract to a comparison; a sort that compares indices last has one answer.
  if (count > 0) order.sort((a, b) => (scores[a] ?? NaN) - (scores[b] ?? NaN) || a - b);
  const evicted = new Uint8Array(scores.length);
  for (const index of order.subarray(0, count)) evicted[index] = 1;
  const kept = new Uint32Array(scores.length - count);
  let length = 0;
  for (let index = 0; index < scores.length; index++) {
    if (evicted[index] === 0) kept[length++] = index;
  }
  assertInvariant(length === kept.length, `${count} of ${end - start} tokens cannot be evicted`);
  return kept;
}

function lowestBlock(
  blocks: KvBlocks,
  protect: KvProtection,
  blockSize: number,
): KvVictim | undefined {
  const { start, end } = evictableTokens(protect, blocks.cachedTokenCount, blockSize);
  let victim = -1;
  let lowest = Infinity;
  for (let block = start / blockSize; (block + 1) * blockSize <= end; block++) {
    const score = blocks.scores[block] ?? Infinity;
    if (score < lowest) {
      victim = block;
      lowest = score;
    }
  }
  return victim === -1 ? undefined : { victim, reason: 'capacity', score: lowest };
}

function mean(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

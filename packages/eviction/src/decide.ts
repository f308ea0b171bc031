/**
 * From scores to decisions: the selection rule that all policies share.
 *
 * At prefill the lowest scores among the evictable tokens go; at decode the full evictable block of
 * lowest mean. Equal scores: the lower index goes first, since the older token is the one that has
 * been read longest.
 */
import { assertInvariant, fail } from '@vramkit/core';
import type { KvBlocks } from './needs.js';
import type { KvDeclaration, KvPolicy, KvVictim } from './policy.js';
import { evictableBlocks, evictableIndices } from './protection.js';

/** What differs between policies; {@link decide} adds what does not. */
export type KvRule = KvDeclaration &
  Pick<KvPolicy, 'scoreTokens' | 'mustEvict'> &
  Partial<Pick<KvPolicy, 'scoreBlocks'>>;

/**
 * A policy that drops what scores lowest.
 * @param rule `scoreBlocks` defaults to the mean of the token scores of each block.
 */
export function decide(rule: KvRule): KvPolicy {
  const { blockSize, budgetTokens, scoreTokens, mustEvict } = rule;
  return {
    ...rule,
    selectTokens(tokens) {
      const scores = scoreTokens(tokens);
      const target = budgetTokens + (tokens.tokenCount % blockSize);
      const excess = Math.max(0, tokens.tokenCount - target);
      return withoutLowest(scores, evictableIndices(rule, tokens.positions), excess);
    },
    scoreBlocks:
      rule.scoreBlocks ??
      ((tokens) => {
        const scores = scoreTokens(tokens);
        const means = new Float64Array(Math.floor(tokens.tokenCount / blockSize));
        return means.map((_, block) =>
          mean(scores.subarray(block * blockSize, (block + 1) * blockSize)),
        );
      }),
    selectVictim(blocks) {
      checkBlocks(blocks, blockSize);
      return mustEvict(blocks) ? lowestBlock(rule, blocks) : undefined;
    },
  };
}

/** The declaration of a policy alone: one by one, as a spread would lose members of a class. */
export function declarationOf(policy: KvPolicy): KvDeclaration {
  const { name, needs, attentionQueries, granularity, blockSize } = policy;
  const { budgetTokens, protect, blockScore, blockMean } = policy;
  return {
    ...{ name, needs, attentionQueries, granularity, blockSize },
    ...{ budgetTokens, protect, blockScore, blockMean },
  };
}

function checkBlocks(blocks: KvBlocks, blockSize: number): void {
  const { cachedTokenCount, positions, scores } = blocks;
  const full = Math.floor(cachedTokenCount / blockSize);
  if (scores.length !== full || positions.length !== cachedTokenCount) {
    fail(
      'invalid-argument',
      `${scores.length} scores for ${full} full blocks, ` +
        `${positions.length} positions for ${cachedTokenCount} tokens`,
      { scores: scores.length, full, positions: positions.length, cachedTokenCount },
    );
  }
  for (let block = 0; block < full; block++) {
    const score = scores[block];
    if (!Number.isFinite(score)) {
      fail('invalid-argument', `the score of block ${block} is ${score}`, {
        block,
        score: String(score),
      });
    }
  }
}

/** Indices of all scores but the `count` lowest among `candidates` (ascending), ascending. */
function withoutLowest(
  scores: Float64Array,
  candidates: readonly number[],
  count: number,
): Uint32Array {
  const order = Uint32Array.from(candidates);
  // Finite numbers subtract to a comparison; a sort that compares indices last has one answer.
  if (count > 0) order.sort((a, b) => (scores[a] ?? NaN) - (scores[b] ?? NaN) || a - b);
  const evicted = new Uint8Array(scores.length);
  for (const index of order.subarray(0, count)) evicted[index] = 1;
  const kept = new Uint32Array(scores.length - count);
  let length = 0;
  for (let index = 0; index < scores.length; index++) {
    if (evicted[index] === 0) kept[length++] = index;
  }
  assertInvariant(length === kept.length, `${count} of ${order.length} tokens cannot be evicted`);
  return kept;
}

function lowestBlock(
  rule: Pick<KvPolicy, 'protect' | 'blockSize'>,
  { positions, scores }: KvBlocks,
): KvVictim | undefined {
  let victim = -1;
  let lowest = Infinity;
  for (const block of evictableBlocks(rule, positions)) {
    const score = scores[block] ?? Infinity;
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

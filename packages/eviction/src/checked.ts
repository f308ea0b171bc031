/**
 * A policy whose decisions are checked before anyone acts on them.
 *
 * Policies are code that users write. One that returns a protected, foreign or repeated index would
 * corrupt a sequence in a way that shows much later, as odd text. The checks cost a pass over the
 * answer and depend only on what the policy declares about itself.
 */
import { assertInvariant, fail } from '@vramkit/core';
import { evictableTokens } from './protection.js';
import type { KvBlocks, KvPolicy, KvTokens, KvVictim } from './policy.js';

/**
 * Wraps a policy: same declarations, same decisions, each one checked.
 *
 * `selectTokens` and `selectVictim` of the result throw `invariant` where an answer is not
 * ascending, names what is not there, drops what is protected, or keeps more than the budget
 * allows.
 */
export function checkedPolicy(policy: KvPolicy): KvPolicy {
  return {
    // Named one by one: a policy may be a class whose members a spread would lose.
    name: policy.name,
    needs: policy.needs,
    attentionQueries: policy.attentionQueries,
    granularity: policy.granularity,
    blockSize: policy.blockSize,
    budgetTokens: policy.budgetTokens,
    protect: policy.protect,
    blockScore: policy.blockScore,
    scoreTokens: (tokens) => policy.scoreTokens(tokens),
    scoreBlocks: (tokens) => policy.scoreBlocks(tokens),
    selectTokens(tokens) {
      const kept = policy.selectTokens(tokens);
      checkKept(policy, tokens, kept);
      return kept;
    },
    selectVictim(blocks) {
      const victim = policy.selectVictim(blocks);
      if (victim !== undefined) checkVictim(policy, blocks, victim);
      return victim;
    },
  };
}

function checkKept(policy: KvPolicy, tokens: KvTokens, kept: Uint32Array): void {
  const { tokenCount } = tokens;
  const { start, end } = evictableTokens(policy.protect, tokenCount, policy.blockSize);
  let previous = -1;
  let keptProtected = 0;
  for (const index of kept) {
    if (!Number.isSafeInteger(index) || index <= previous || index >= tokenCount) {
      fail('invariant', `policy '${policy.name}' keeps token ${index} after ${previous}`, {
        policy: policy.name,
        index: String(index),
        previous,
        tokenCount,
      });
    }
    if (index < start || index >= end) keptProtected++;
    previous = index;
  }
  const protectedCount = tokenCount - (end - start);
  assertInvariant(
    keptProtected === protectedCount,
    `policy '${policy.name}' keeps ${keptProtected} of ${protectedCount} protected tokens`,
    { policy: policy.name, kept: keptProtected, protectedCount },
  );
  const limit = policy.budgetTokens + policy.blockSize - 1;
  assertInvariant(
    kept.length <= limit,
    `policy '${policy.name}' keeps ${kept.length} tokens, at most ${limit} fit its budget`,
    { policy: policy.name, kept: kept.length, limit },
  );
}

function checkVictim(policy: KvPolicy, blocks: KvBlocks, { victim }: KvVictim): void {
  const { blockSize, name } = policy;
  const { start, end } = evictableTokens(policy.protect, blocks.cachedTokenCount, blockSize);
  assertInvariant(
    Number.isSafeInteger(victim) && victim * blockSize >= start && (victim + 1) * blockSize <= end,
    `policy '${name}' evicts block ${victim}; only tokens ${start} to ${end} may go`,
    { policy: name, victim: String(victim), start, end, blockSize },
  );
}

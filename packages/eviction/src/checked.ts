/**
 * A policy whose decisions are checked before anyone acts on them.
 *
 * Policies are code that users write. One that returns a protected, foreign or repeated index would
 * corrupt a sequence in a way that shows much later, as odd text. The checks cost a pass over the
 * answer and depend only on what the policy declares about itself.
 */
import { assertInvariant, fail } from '@vramkit/core';
import { declarationOf } from './decide.js';
import type { KvBlocks, KvTokens } from './needs.js';
import type { KvPolicy, KvVictim } from './policy.js';
import { evictableBlocks, evictableIndices } from './protection.js';

/**
 * Wraps a policy: same declarations, same decisions, each one checked.
 *
 * `selectTokens` and `selectVictim` of the result throw `invariant` where an answer is not
 * ascending, names what is not there, drops what is protected, or keeps more than the budget
 * allows.
 */
export function checkedPolicy(policy: KvPolicy): KvPolicy {
  return {
    ...declarationOf(policy),
    scoreTokens: (tokens) => policy.scoreTokens(tokens),
    scoreBlocks: (tokens) => policy.scoreBlocks(tokens),
    mustEvict: (progress) => policy.mustEvict(progress),
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
  const isProtected = new Uint8Array(tokenCount).fill(1);
  for (const index of evictableIndices(policy, tokens.positions)) isProtected[index] = 0;
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
    keptProtected += isProtected[index] ?? 0;
    previous = index;
  }
  const protectedCount = isProtected.reduce((sum, flag) => sum + flag, 0);
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
  const evictable = evictableBlocks(policy, blocks.positions);
  assertInvariant(
    evictable.includes(victim),
    `policy '${policy.name}' evicts block ${victim}; only blocks ${evictable.join(', ')} may go`,
    { policy: policy.name, victim: String(victim), evictable },
  );
}

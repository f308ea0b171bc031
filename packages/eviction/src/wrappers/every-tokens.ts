/**
 * Wrapper: at decode evict at intervals, several blocks at once, instead of at each filled block.
 *
 * Scores that need attention or all keys are then computed once per interval. The price is memory:
 * a sequence holds up to `budgetTokens + intervalTokens - 1` tokens between decisions.
 *
 * The cache asks until the policy is content, so at the end of an interval the sequence comes down
 * to its budget, the lowest block first.
 */
import { assertArgument, checkInteger } from '@vramkit/core';
import { decide, declarationOf } from '../decide.js';
import type { KvPolicy } from '../policy.js';

/** Options of {@link everyTokens}. */
export interface EveryTokensOptions {
  /** Tokens between two decisions, counted from the start of the sequence: whole blocks. */
  readonly intervalTokens: number;
}

/**
 * The policy, asked at intervals.
 * @throws VramError `invalid-argument` where the interval is no multiple of the block size.
 */
export function everyTokens(policy: KvPolicy, options: EveryTokensOptions): KvPolicy {
  const { blockSize } = policy;
  const intervalTokens = checkInteger('intervalTokens', options.intervalTokens, blockSize);
  assertArgument(
    intervalTokens % blockSize === 0,
    `intervalTokens ${intervalTokens} is no multiple of blocks of ${blockSize}`,
    { intervalTokens, blockSize },
  );
  return decide({
    ...declarationOf(policy),
    scoreTokens: (tokens) => policy.scoreTokens(tokens),
    scoreBlocks: (tokens) => policy.scoreBlocks(tokens),
    mustEvict: (progress) =>
      progress.tokenCount % intervalTokens === 0 && policy.mustEvict(progress),
  });
}

/**
 * What policies with a score have in common: a budget, whole blocks protected at both ends, and an
 * aggregation.
 *
 * The ends are protected alike by default, so that a comparison of policies compares their scores:
 * unprotected ends are reported to cost most of the quality at small budgets, whatever the score.
 * Papers that protect nothing are met by setting both to 0.
 */
import { checkInteger } from '@vramkit/core';
import { combine } from './combine.js';
import type { KvAggregation, KvPolicy, KvScore } from './policy.js';

/** Options that every policy with a score takes. */
export interface ScoredOptions {
  /** Tokens that may stay; rounded down to whole blocks. At least three blocks. */
  readonly budgetTokens: number;
  /** Tokens of a block. */
  readonly blockSize: number;
  /** First blocks that always stay, blocks. Default: 1. */
  readonly protectFirstBlocks?: number;
  /** Last full blocks that always stay, blocks. Default: 1, or what the policy says. */
  readonly protectLastBlocks?: number;
  /** One score per token. Default: the mean over layers and heads, or what the policy says. */
  readonly aggregation?: KvAggregation;
}

/**
 * A policy of a score.
 * @throws VramError `invalid-argument` as {@link combine}, and for blocks that are no counts.
 */
export function scored(name: string, score: KvScore, options: ScoredOptions): KvPolicy {
  const { budgetTokens, protectFirstBlocks = 1, protectLastBlocks = 1, aggregation } = options;
  const blockSize = checkInteger('blockSize', options.blockSize, 1);
  return combine({
    name,
    budgetTokens,
    blockSize,
    score,
    ...(aggregation && { aggregation }),
    protect: {
      firstTokens: checkInteger('protectFirstBlocks', protectFirstBlocks) * blockSize,
      lastTokens: checkInteger('protectLastBlocks', protectLastBlocks) * blockSize,
    },
  });
}

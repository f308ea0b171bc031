/**
 * PyramidKV: SnapKV's score, with more room for the first layers than for the last.
 *
 * Attention is spread out in early layers and narrows towards the last, so the budgets of the
 * layers fall linearly from the first to the last, with the same sum. With C the budget, w the
 * window and T the tokens held:
 *
 * ```
 *   last layer   (C - w) / beta             first layer   2 (C - w) - last
 *   where the first exceeds T - w: first = T - w, last = 2 (C - w) - first
 * ```
 *
 * Heads and layers: all layers share one block table here, so a layer cannot keep more tokens than
 * another. The budgets become votes: each head of each layer votes for as many tokens as its layer
 * may keep, and the tokens with most votes stay ({@link votesWithinBudgets}). The paper gives each
 * layer a cache of its own, chosen per head; for tables per layer use {@link pyramidBudgets} with
 * one {@link snapKv} for each.
 *
 * Where this differs from the paper beyond that: as {@link snapKv}; budgets are rounded down; a
 * model of one layer gets the mean.
 *
 * What it gets wrong: where a few tokens are loved by many early heads, their votes outnumber the
 * few that the last layers may cast.
 *
 * Source: Cai and others, "PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information
 * Funneling" (arXiv 2406.02069).
 */
import { assertArgument, checkInteger } from '@vramkit/core';
import { votesWithinBudgets } from '../aggregation.js';
import type { KvPolicy } from '../policy.js';
import { scored } from '../scored.js';
import { pooledAttention, type SnapKvOptions } from './snap-kv.js';

/** Options of {@link pyramidKv}. */
export interface PyramidKvOptions extends Omit<SnapKvOptions, 'aggregation'> {
  /** How much steeper the pyramid is: the last layer gets a share of 1 / beta. Default: 20. */
  readonly beta?: number;
}

/** Options of {@link pyramidBudgets}. */
export interface PyramidBudgetsOptions {
  /** Mean budget of a layer, window included, tokens. */
  readonly budgetTokens: number;
  /** Last tokens that every layer keeps. */
  readonly windowTokens: number;
  /** Tokens held. */
  readonly tokenCount: number;
  /** Layers, at least 1. */
  readonly layers: number;
  /** See {@link PyramidKvOptions}. */
  readonly beta: number;
}

/** Tokens that each layer may keep, window included, the first layer first. */
export function pyramidBudgets(options: PyramidBudgetsOptions): number[] {
  const { budgetTokens, windowTokens, tokenCount, layers, beta } = options;
  const mean = Math.max(0, Math.min(budgetTokens, tokenCount) - windowTokens);
  const first = Math.min(2 * mean - mean / beta, Math.max(0, tokenCount - windowTokens));
  const last = 2 * mean - first;
  const step = layers > 1 ? (first - last) / (layers - 1) : 0;
  const start = layers > 1 ? first : mean;
  return Array.from({ length: layers }, (_, layer) =>
    Math.floor(windowTokens + start - layer * step),
  );
}

/**
 * SnapKV with a pyramid of budgets.
 * @throws VramError `invalid-argument` as {@link snapKv}, and where `beta` is below 1.
 */
export function pyramidKv(options: PyramidKvOptions): KvPolicy {
  const { windowTokens = 32, poolTokens = 5, beta = 20, budgetTokens, blockSize } = options;
  assertArgument(beta >= 1 && Number.isFinite(beta), `beta must be at least 1, got ${beta}`);
  checkInteger('blockSize', blockSize, 1);
  const budget = Math.floor(budgetTokens / blockSize) * blockSize;
  return scored('pyramidKv', pooledAttention(windowTokens, poolTokens), {
    ...options,
    protectLastBlocks: options.protectLastBlocks ?? Math.ceil(windowTokens / blockSize),
    aggregation: votesWithinBudgets(({ layers, tokenCount }) =>
      pyramidBudgets({ budgetTokens: budget, windowTokens, tokenCount, layers, beta }),
    ),
  });
}

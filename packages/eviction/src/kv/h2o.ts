/**
 * H2O, the heavy-hitter oracle: keep what received most attention so far, and the recent tokens.
 *
 * The score is the softmax weight that a token received, added up over every query since it was
 * cached. Half of the budget is a window of recent tokens, which had no chance to collect any; the
 * rest goes to the heavy hitters. What an evicted token had received is gone with it.
 *
 * Heads and layers: a token's score is the mean over layers of the mean over KV heads, the weight
 * of a KV head being the mean over its query heads. The paper chooses per head, which one block
 * table for all heads does not allow.
 *
 * Where this differs from the paper: whole blocks of lowest mean go at decode, not a token per
 * step; the first block is protected by default; the shares of window and heavy hitters are of the
 * budget, not of the prompt.
 *
 * What it gets wrong: a sum favours early tokens, which more queries have seen, and what mattered
 * to the start of a text stays when the subject has changed.
 *
 * Source: Zhang and others, "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large
 * Language Models" (arXiv 2306.14048, NeurIPS 2023).
 */
import type { KvPolicy } from '../policy.js';
import { receivedAttention } from '../received-attention.js';
import { scored, type ScoredOptions } from '../scored.js';

/**
 * Heavy hitters and a window. `protectLastBlocks`, the window, defaults to half of the budget,
 * rounded down, and at least 1.
 * @throws VramError `invalid-argument` as {@link scored}.
 */
export function h2o(options: ScoredOptions): KvPolicy {
  const half = Math.floor(options.budgetTokens / options.blockSize / 2);
  return scored('h2o', receivedAttention(Infinity), {
    ...options,
    protectLastBlocks: options.protectLastBlocks ?? Math.max(1, half),
  });
}

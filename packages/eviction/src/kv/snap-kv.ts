/**
 * SnapKV: keep what the last queries of the prompt attend to, and its neighbours.
 *
 * The attention that earlier tokens receive from an observation window, the last `windowTokens`
 * queries, is summed and smoothed along the sequence by a mean over `poolTokens` neighbours, so
 * that a token that matters keeps its context. The window itself always stays.
 *
 * ```
 *   tokens    0 ................. T - w | T - w ..... T
 *   score     pooled attention          | the highest of them
 * ```
 *
 * Heads and layers: a token's score is the mean over layers of the mean over KV heads, the weight
 * of a KV head being the mean over its query heads. The paper chooses per query head.
 *
 * Where this differs from the paper: it compresses the prompt once and keeps everything generated;
 * here decode evicts the block of lowest mean by the same rule, with the most recent queries as the
 * window. The window is protected in whole blocks. Pooling is the mean, the default of the
 * published code; behind the ends count zeros, as there. The first block is protected by default.
 *
 * What it gets wrong: a question that comes after the compression was not in the window.
 *
 * Source: Li and others, "SnapKV: LLM Knows What You are Looking for Before Generation" (arXiv
 * 2404.14469, NeurIPS 2024).
 */
import { assertArgument, checkInteger } from '@vramkit/core';
import type { KvPolicy, KvScore } from '../policy.js';
import { scored, type ScoredOptions } from '../scored.js';
import { statistic } from '../tokens.js';

/** Options of {@link snapKv}. */
export interface SnapKvOptions extends ScoredOptions {
  /** Last queries that vote, and last tokens that stay. Default: 32. */
  readonly windowTokens?: number;
  /** Neighbours that a score is the mean of; odd. Default: 5. */
  readonly poolTokens?: number;
}

/**
 * Pooled attention of a window of queries.
 * @throws VramError `invalid-argument` where `windowTokens` is below 1 or `poolTokens` is not odd.
 */
export function pooledAttention(windowTokens: number, poolTokens: number): KvScore {
  checkInteger('windowTokens', windowTokens, 1);
  checkInteger('poolTokens', poolTokens, 1);
  assertArgument(poolTokens % 2 === 1, `poolTokens must be odd, got ${poolTokens}`);
  return {
    needs: ['attention'],
    attentionQueries: windowTokens,
    blockScore: 'when-triggered',
    blockMean: undefined,
    score(tokens, out) {
      const attention = statistic(tokens, 'attention');
      const width = tokens.layers * tokens.kvHeads;
      const earlier = Math.max(0, tokens.tokenCount - windowTokens);
      const reach = (poolTokens - 1) / 2;
      for (let row = 0; row < width; row++) {
        let highest = 0;
        for (let token = 0; token < earlier; token++) {
          const end = Math.min(earlier, token + reach + 1);
          let sum = 0;
          for (let near = Math.max(0, token - reach); near < end; near++) {
            sum += attention[near * width + row] ?? NaN;
          }
          out[token * width + row] = sum / poolTokens;
          highest = Math.max(highest, sum / poolTokens);
        }
        for (let token = earlier; token < tokens.tokenCount; token++) {
          out[token * width + row] = highest;
        }
      }
    },
  };
}

/**
 * Keeps what the last queries attend to. `protectLastBlocks` defaults to the window in whole
 * blocks.
 * @throws VramError `invalid-argument` as {@link scored} and {@link pooledAttention}.
 */
export function snapKv(options: SnapKvOptions): KvPolicy {
  const { windowTokens = 32, poolTokens = 5, blockSize } = options;
  return scored('snapKv', pooledAttention(windowTokens, poolTokens), {
    ...options,
    protectLastBlocks: options.protectLastBlocks ?? Math.ceil(windowTokens / blockSize),
  });
}

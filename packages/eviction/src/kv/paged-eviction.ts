/**
 * PagedEviction: drop the tokens, later the block, whose values are small for the size of their
 * keys.
 *
 * The importance of a token is `||V|| / ||K||`. A key of small norm tends to attract attention, and
 * a value of large norm changes what is read, so no attention weights are needed and fused
 * attention kernels stay as they are. A block is as important as the mean of its tokens' ratios.
 *
 * - Prefill, token by token: with C the budget, L the prompt and r = L mod B, the C + r best tokens
 *   stay, in order, before they are cut into blocks.
 * - Decode, block by block: only when the newest block has just filled and the sequence holds more
 *   than C tokens, the one block of lowest mean goes. Nothing is computed in between.
 *
 * Heads and layers: a token's score is the mean over layers of the mean over KV heads of the ratio
 * of each head. The paper leaves this open; one block table for all layers makes one order
 * necessary.
 *
 * Where this differs from the paper's description: the first and the newest block are protected
 * unless `paperLiteral` is set, because unprotected ends are reported to cost most of the quality
 * at small budgets; C + r tokens stay at prefill instead of C, so that the number held stays
 * congruent to the number seen and blocks fill at the same steps; norms are clamped from below, so
 * that a zero key gives a large score and not NaN.
 *
 * What it gets wrong: the ratio does not know the query. A fact that the next question asks for may
 * have an unremarkable ratio. Layers whose ratios are large outvote the others.
 *
 * Source: "PagedEviction: Structured Block-wise KV Cache Pruning for Efficient Large Language Model
 * Inference" (arXiv 2509.04377, Findings of EACL 2026).
 */
import { assertArgument } from '@vramkit/core';
import type { KvPolicy, KvScore } from '../policy.js';
import { scored, type ScoredOptions } from '../scored.js';
import { statistic } from '../tokens.js';

/** Options of {@link pagedEviction}. */
export interface PagedEvictionOptions extends ScoredOptions {
  /** Whether every block is a candidate, as in the paper's description. Default: false. */
  readonly paperLiteral?: boolean;
  /** Smallest key norm that is divided by. Default: 1e-6. */
  readonly epsilon?: number;
}

/**
 * The ratio of norms per token, layer and KV head.
 * @throws VramError `invalid-argument` where `epsilon` is not positive and finite.
 */
export function valueOverKeyNorm(epsilon: number): KvScore {
  assertArgument(
    epsilon > 0 && Number.isFinite(epsilon),
    `epsilon must be positive and finite, got ${epsilon}`,
    { epsilon: String(epsilon) },
  );
  return {
    needs: ['keyNorm', 'valueNorm'],
    attentionQueries: 0,
    blockScore: 'when-filled',
    blockMean: { statistic: 'valueOverKeyNorm', factor: 1, epsilon },
    score(tokens, out) {
      const keyNorm = statistic(tokens, 'keyNorm');
      const valueNorm = statistic(tokens, 'valueNorm');
      for (let index = 0; index < out.length; index++) {
        out[index] = (valueNorm[index] ?? NaN) / Math.max(keyNorm[index] ?? NaN, epsilon);
      }
    },
  };
}

/**
 * PagedEviction.
 * @throws VramError `invalid-argument` where the budget is below three blocks or below what is
 *   protected, `epsilon` is not positive, or `paperLiteral` comes with protected blocks.
 */
export function pagedEviction(options: PagedEvictionOptions): KvPolicy {
  const { paperLiteral = false, epsilon = 1e-6 } = options;
  const ends = paperLiteral ? 0 : 1;
  const { protectFirstBlocks = ends, protectLastBlocks = ends } = options;
  assertArgument(
    !paperLiteral || (protectFirstBlocks === 0 && protectLastBlocks === 0),
    `paperLiteral protects no blocks, but ${protectFirstBlocks} first and ` +
      `${protectLastBlocks} last are given`,
    { protectFirstBlocks, protectLastBlocks },
  );
  const rule = valueOverKeyNorm(epsilon);
  return scored('pagedEviction', rule, { ...options, protectFirstBlocks, protectLastBlocks });
}

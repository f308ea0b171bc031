/**
 * Wrapper: at prefill tokens stay or go in chunks of neighbours, by the mean of their scores.
 *
 * A token that stays keeps its context, which single tokens lose. Chunks of one block are whole
 * blocks: nothing has to be moved, and prefill and decode evict by the same rule.
 *
 * Chunks are cut from the first held token on. The number of tokens that stay is exact, so the last
 * chunk that goes may go in part, its first tokens; whole blocks always go whole. Decode is left as
 * it is.
 *
 * Source: Liu and others, "ChunkKV: Semantic-Preserving KV Cache Compression for Efficient
 * Long-Context LLM Inference" (arXiv 2502.00299), with chunks of 20 tokens. There each head chooses
 * for itself, and neighbouring layers share a choice; here all share one.
 */
import { checkInteger } from '@vramkit/core';
import { decide, declarationOf } from '../decide.js';
import type { KvPolicy } from '../policy.js';

/** Options of {@link inChunks}. */
export interface InChunksOptions {
  /** Tokens of a chunk. Default: one block. */
  readonly chunkTokens?: number;
}

/**
 * The policy, in chunks at prefill.
 * @throws VramError `invalid-argument` where `chunkTokens` is below 1.
 */
export function inChunks(policy: KvPolicy, options: InChunksOptions = {}): KvPolicy {
  const chunkTokens = checkInteger('chunkTokens', options.chunkTokens ?? policy.blockSize, 1);
  const { prefill, decode } = policy.granularity;
  const unit = chunkTokens === policy.blockSize ? 'block' : 'token';
  return decide({
    ...declarationOf(policy),
    granularity: { prefill: prefill === 'none' ? prefill : unit, decode },
    scoreTokens(tokens) {
      const scores = policy.scoreTokens(tokens);
      for (let start = 0; start < scores.length; start += chunkTokens) {
        const chunk = scores.subarray(start, start + chunkTokens);
        chunk.fill(chunk.reduce((sum, score) => sum + score, 0) / chunk.length);
      }
      return scores;
    },
    scoreBlocks: (tokens) => policy.scoreBlocks(tokens),
    mustEvict: (progress) => policy.mustEvict(progress),
  });
}

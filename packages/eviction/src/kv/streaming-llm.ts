/**
 * StreamingLLM: the first tokens and a sliding window of the most recent ones.
 *
 * The first tokens of a sequence soak up attention that has nowhere else to go; a window alone
 * loses them and the model breaks down. Kept are `sinkTokens` at the front, rounded up to whole
 * blocks, and as many recent tokens as the budget leaves. Everything kept is protected, so what
 * goes is the middle, oldest first, and no score is ever consulted.
 *
 * What it gets wrong: a fact in the middle of a document is gone, however important.
 *
 * Source: Xiao, Tian, Chen, Han, Lewis, "Efficient Streaming Language Models with Attention Sinks"
 * (2023). Two differences. The paper counts tokens, here sinks and evictions during decode are
 * whole blocks. The paper renumbers positions within the cache, here tokens keep the positions they
 * were rotated by, so the distance between window and sinks grows with the text.
 */
import { checkInteger } from '@vramkit/core';
import { combine } from '../combine.js';
import type { KvPolicy, KvScore } from '../policy.js';

/** Options of {@link streamingLlm}. */
export interface StreamingLlmOptions {
  /** Tokens that may stay, sinks included; rounded down to whole blocks. At least three blocks. */
  readonly budgetTokens: number;
  /** Tokens of a block. */
  readonly blockSize: number;
  /** First tokens that always stay, tokens; rounded up to whole blocks. Default: 4. */
  readonly sinkTokens?: number;
}

/** The position of a token: the later, the higher. */
const recency: KvScore = {
  needs: [],
  attentionQueries: 0,
  blockScore: 'when-filled',
  blockMean: undefined,
  score(tokens, out) {
    const width = tokens.layers * tokens.kvHeads;
    tokens.positions.forEach((position, token) => {
      out.fill(position, token * width, (token + 1) * width);
    });
  },
};

/**
 * Sinks and a window.
 * @throws VramError `invalid-argument` where the budget is below three blocks or leaves no block
 *   for the window.
 */
export function streamingLlm(options: StreamingLlmOptions): KvPolicy {
  const blockSize = checkInteger('blockSize', options.blockSize, 1);
  const sinkTokens = checkInteger('sinkTokens', options.sinkTokens ?? 4);
  const sinkBlocks = Math.ceil(sinkTokens / blockSize);
  const budgetBlocks = Math.floor(options.budgetTokens / blockSize);
  return combine({
    name: 'streamingLlm',
    budgetTokens: options.budgetTokens,
    blockSize,
    score: recency,
    protect: {
      firstTokens: sinkBlocks * blockSize,
      lastTokens: Math.max(1, budgetBlocks - sinkBlocks) * blockSize,
    },
  });
}

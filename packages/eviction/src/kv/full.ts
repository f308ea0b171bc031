/**
 * Full cache: nothing is ever evicted. The reference that every other policy is compared with.
 */
import { checkInteger } from '@vramkit/core';
import { checkTokens } from '../tokens.js';
import type { KvPolicy } from '../policy.js';

/** Options of {@link full}. */
export interface FullOptions {
  /** Tokens of a block. */
  readonly blockSize: number;
}

/**
 * The policy that keeps everything. All scores are equal; its budget is `Infinity`.
 * @throws VramError `invalid-argument` where `blockSize` is not at least 1.
 */
export function full(options: FullOptions): KvPolicy {
  const blockSize = checkInteger('blockSize', options.blockSize, 1);
  return {
    name: 'full',
    needs: [],
    attentionQueries: 0,
    granularity: { prefill: 'none', decode: 'none' },
    blockSize,
    budgetTokens: Infinity,
    protect: { firstTokens: 0, lastTokens: 0 },
    blockScore: 'when-filled',
    blockMean: undefined,
    scoreTokens(tokens) {
      checkTokens(tokens);
      return new Float64Array(tokens.tokenCount);
    },
    selectTokens(tokens) {
      checkTokens(tokens);
      return Uint32Array.from({ length: tokens.tokenCount }, (_, index) => index);
    },
    scoreBlocks(tokens) {
      checkTokens(tokens);
      return new Float64Array(Math.floor(tokens.tokenCount / blockSize));
    },
    mustEvict: () => false,
    selectVictim: () => undefined,
  };
}

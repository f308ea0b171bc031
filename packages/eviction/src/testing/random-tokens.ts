/** Token data for tests of policies: seeded, so that a failure repeats. */
import { seededRandom } from '@vramkit/core/testing';
import type { KvBlocks, KvTokens } from '../needs.js';

/** Sizes of {@link randomTokens}. */
export interface RandomTokensOptions {
  /** Tokens. */
  readonly tokenCount: number;
  /** Layers. Default: 2. */
  readonly layers?: number;
  /** KV heads of a layer. Default: 3. */
  readonly kvHeads?: number;
  /** Values of a key. Default: 4. */
  readonly headDim?: number;
  /** Seed; equal seeds give equal tokens. Default: 1. */
  readonly seed?: number;
}

/**
 * Tokens at positions 0, 1, ... with every need filled from a seed, each independent of the others;
 * two query heads to a KV head.
 */
export function randomTokens(options: RandomTokensOptions): KvTokens {
  const { tokenCount, layers = 2, kvHeads = 3, headDim = 4, seed = 1 } = options;
  const random = seededRandom(seed);
  const rows = tokenCount * layers * kvHeads;
  const heads = 2 * kvHeads;
  const fill = (length: number, scale: number, shift: number): Float32Array => {
    const array = new Float32Array(length);
    for (let i = 0; i < length; i++) array[i] = random.uniform() * scale + shift;
    return array;
  };
  const variance = Float32Array.from({ length: layers * heads * headDim * headDim }, (_, index) =>
    index % (headDim + 1) === 0 ? random.uniform() : 0,
  );
  return {
    tokenCount,
    layers,
    kvHeads,
    positions: Uint32Array.from({ length: tokenCount }, (_, index) => index),
    keyNorm: fill(rows, 10, 0.1),
    valueNorm: fill(rows, 4, 0),
    keySimilarity: fill(rows, 2, -1),
    keys: fill(rows * headDim, 2, -1),
    values: fill(rows * headDim, 2, -1),
    attention: fill(rows, 1, 0),
    queries: { heads, mean: fill(layers * heads * headDim, 2, -1), covariance: variance },
  };
}

/** The blocks of a sequence that holds positions 0, 1, ..., and has just filled a block. */
export function blocksWith(
  cachedTokenCount: number,
  scores: readonly number[],
  changes: Partial<KvBlocks> = {},
): KvBlocks {
  return {
    tokenCount: cachedTokenCount,
    cachedTokenCount,
    blockFilled: true,
    positions: Uint32Array.from({ length: cachedTokenCount }, (_, index) => index),
    scores,
    ...changes,
  };
}

/** Keys, values and queries for tests: seeded, plain or made to give trouble. */
import { seededRandom } from '@vramkit/core/testing';
import type { PlainKv } from './measure-tokens.js';

/** What the numbers of {@link randomKv} are like. */
export const KV_KINDS = [
  /** Normally distributed. */
  'random',
  /** Three in ten keys and values are zero. */
  'sparse',
  /** All are zero. */
  'zero',
  /** All tokens are equal. */
  'equal',
  /** Values of -1, 0 and 1 only, which makes ties. */
  'coarse',
  /** Magnitudes from 0.001 to 1000. */
  'wide',
] as const;

/** One of {@link KV_KINDS}. */
export type KvKind = (typeof KV_KINDS)[number];

/** Sizes of {@link randomKv}. */
export interface RandomKvOptions {
  /** Tokens. */
  readonly tokenCount: number;
  /** Default: 'random'. */
  readonly kind?: KvKind;
  /** Default: 2. */
  readonly layers?: number;
  /** Default: 2. */
  readonly kvHeads?: number;
  /** Query heads of a KV head. Default: 2. */
  readonly group?: number;
  /** Default: 4. */
  readonly headDim?: number;
  /** Seed; equal seeds give equal numbers. Default: 1. */
  readonly seed?: number;
}

/** A sequence at positions 0, 1, ... with a query at each. */
export function randomKv(options: RandomKvOptions): PlainKv {
  const { tokenCount, kind = 'random', layers = 2, kvHeads = 2, group = 2, headDim = 4 } = options;
  const random = seededRandom(options.seed ?? 1);
  const rows = (heads: number): Float32Array => {
    const width = layers * heads * headDim;
    const array = random.float32Array(tokenCount * width);
    for (let from = 0; from < array.length; from += headDim) {
      const vector = array.subarray(from, from + headDim);
      if (kind === 'zero' || (kind === 'sparse' && random.uniform() < 0.3)) vector.fill(0);
      if (kind === 'equal') vector.set(array.subarray(from % width, (from % width) + headDim));
      if (kind === 'coarse') vector.set(vector.map((value) => Math.round(value)));
      const scale = 10 ** random.integer(-3, 3);
      if (kind === 'wide') vector.set(vector.map((value) => value * scale));
    }
    return array;
  };
  const positions = Uint32Array.from({ length: tokenCount }, (_, token) => token);
  return {
    layers,
    kvHeads,
    headDim,
    positions,
    keys: rows(kvHeads),
    values: rows(kvHeads),
    queryHeads: kvHeads * group,
    queryPositions: positions,
    queries: rows(kvHeads * group),
  };
}

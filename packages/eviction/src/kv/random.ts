/**
 * Random eviction: the baseline that a score has to beat.
 *
 * The score of a token is a hash of its position and a seed, so the same token draws the same lot
 * at every question, in every layer and head, and a run repeats.
 *
 * What it gets wrong: everything, without bias. Research code that leaves a random choice switched
 * on looks like a policy; a comparison without this row cannot tell.
 *
 * Differences: none, as there is no paper. The hash is the 32-bit finalizer of MurmurHash3
 * (Appleby, 2011), applied twice; it is no source of secrets.
 */
import { checkInteger } from '@vramkit/core';
import type { KvPolicy, KvScore } from '../policy.js';
import { scored, type ScoredOptions } from '../scored.js';

/** Options of {@link random}. */
export interface RandomOptions extends ScoredOptions {
  /** An integer in `[0, 2^32)`. Default: 0. */
  readonly seed?: number;
}

/**
 * Seeded random eviction.
 * @throws VramError `invalid-argument` as {@link scored}, and for a seed out of range.
 */
export function random(options: RandomOptions): KvPolicy {
  const seed = checkInteger('seed', options.seed ?? 0, 0, 0xffff_ffff);
  const lots: KvScore = {
    needs: [],
    attentionQueries: 0,
    blockScore: 'when-filled',
    blockMean: undefined,
    score(tokens, out) {
      const width = tokens.layers * tokens.kvHeads;
      tokens.positions.forEach((position, token) => {
        const lot = mix(mix(position) ^ seed) / 2 ** 32;
        out.fill(lot, token * width, (token + 1) * width);
      });
    },
  };
  return scored('random', lots, options);
}

/** Spreads the bits of a 32-bit integer over all of them. */
function mix(value: number): number {
  let bits = value + 0x9e37_79b9;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85eb_ca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2_ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}

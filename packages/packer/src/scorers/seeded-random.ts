/**
 * Random numbers from a seed, for estimators: the same on every machine.
 *
 * mulberry32 passes what an average over probes needs and is a few operations. Not for secrets.
 */

/** Numbers in [0, 1), always the same for a seed. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

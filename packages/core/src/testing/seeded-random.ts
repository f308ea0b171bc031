/**
 * Pseudo-random data that is the same on every machine and in every run.
 *
 * xorshift32 (Marsaglia, 2003), seeded through an integer hash, so that neighbouring seeds give
 * unrelated streams. Good for test data; not for statistics or secrets.
 */
import { assertArgument, checkInteger } from '../assert.js';

/** A stream of pseudo-random numbers. */
export interface SeededRandom {
  /** An integer in `[0, 2^32)`; never 0, as xorshift's state never is. */
  uint32(): number;
  /** A number in `[0, 1)`. */
  uniform(): number;
  /** An integer in `[min, max]`, both included. */
  integer(min: number, max: number): number;
  /** A number of the standard normal distribution. */
  normal(): number;
  /** `count` normal numbers times `scale` (default 1), rounded to f32. */
  float32Array(count: number, scale?: number): Float32Array<ArrayBuffer>;
}

/** A stream that depends on `seed` (an integer in `[0, 2^32)`) alone. */
export function seededRandom(seed: number): SeededRandom {
  checkInteger('seed', seed, 0, 0xffff_ffff);
  // Two rounds of multiply and fold; the state of xorshift must not be 0.
  let state = Math.imul(seed ^ (seed >>> 16) ^ 0x9e37_79b9, 0x85eb_ca6b);
  state = Math.imul(state ^ (state >>> 13), 0xc2b2_ae35);
  state = (state ^ (state >>> 16)) >>> 0 || 0x6d2b_79f5;

  function uint32(): number {
    state ^= state << 13;
    state ^= state >>> 17;
    state = (state ^ (state << 5)) >>> 0;
    return state;
  }

  const uniform = (): number => uint32() / 2 ** 32;

  function normal(): number {
    // Box-Muller; 1 - uniform is in (0, 1], where the logarithm is finite.
    return Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  }

  return {
    uint32,
    uniform,
    normal,
    integer(min, max) {
      assertArgument(
        Number.isSafeInteger(min) && Number.isSafeInteger(max) && min <= max,
        `no integers in [${min}, ${max}]`,
      );
      return min + Math.floor(uniform() * (max - min + 1));
    },
    float32Array(count, scale = 1) {
      return Float32Array.from({ length: count }, () => normal() * scale);
    },
  };
}

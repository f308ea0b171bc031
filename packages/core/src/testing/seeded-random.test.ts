/** The stream is fixed by its seed, and its distributions are what they say. */
import { describe, expect, it } from 'vitest';
import { seededRandom } from './seeded-random.js';

describe('seededRandom', () => {
  it('depends on the seed alone, and neighbouring seeds differ', () => {
    const stream = (seed: number): number[] => {
      const random = seededRandom(seed);
      return [random.uint32(), random.uint32(), random.uint32()];
    };
    expect(stream(1)).toEqual(stream(1));
    const firsts = Array.from({ length: 1000 }, (_, seed) => stream(seed)[0]);
    expect(new Set(firsts).size).toBe(1000);
  });

  it('covers a range of integers evenly, ends included', () => {
    const random = seededRandom(3);
    const counts = [0, 0, 0, 0];
    for (let i = 0; i < 4000; i += 1) {
      const slot = random.integer(-1, 2) + 1;
      counts[slot] = (counts[slot] ?? 0) + 1;
    }
    // 1000 expected each; six standard deviations are 164.
    for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(164);
  });

  it('gives uniform numbers below one and normal ones of mean 0 and variance 1', () => {
    const random = seededRandom(0);
    const uniform = Array.from({ length: 10_000 }, () => random.uniform());
    expect(Math.min(...uniform)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...uniform)).toBeLessThan(1);
    const normal = random.float32Array(10_000, 2);
    const mean = normal.reduce((sum, value) => sum + value, 0) / normal.length;
    const variance = normal.reduce((sum, value) => sum + (value - mean) ** 2, 0) / normal.length;
    expect(Math.abs(mean)).toBeLessThan(0.12);
    expect(Math.abs(variance - 4)).toBeLessThan(0.35);
  });

  it('rejects bad seeds and empty ranges', () => {
    for (const seed of [-1, 0.5, 2 ** 32]) expect(() => seededRandom(seed)).toThrow(/seed/);
    expect(() => seededRandom(1).integer(2, 1)).toThrow(/no integers/);
  });
});

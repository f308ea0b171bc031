/** Random eviction: conformance, one lot per position and seed, and no preference. */
import { describe, expect, it } from 'vitest';
import { describeKvPolicy, randomTokens } from '../testing.js';
import { gatherTokens } from '../tokens.js';
import { random } from './random.js';

const size = { budgetTokens: 512, blockSize: 4 };

describeKvPolicy('random', random, { describe, expect, it });

it('draws one lot per position and seed, whatever else is held', () => {
  const tokens = randomTokens({ tokenCount: 300 });
  const all = random({ ...size, seed: 7 }).scoreTokens(tokens);
  const some = random({ ...size, seed: 7 }).scoreTokens(gatherTokens(tokens, [5, 200]));
  // The mean over layers and heads of equal numbers may round.
  expect(some[0]).toBeCloseTo(all[5] ?? NaN, 12);
  expect(some[1]).toBeCloseTo(all[200] ?? NaN, 12);
  expect(random({ ...size, seed: 8 }).scoreTokens(tokens)).not.toEqual(all);
  expect(new Set(all).size).toBe(300);
});

it('prefers no part of a text', () => {
  const nothing = { protectFirstBlocks: 0, protectLastBlocks: 0 };
  const tokens = randomTokens({ tokenCount: 4096, layers: 1, kvHeads: 1 });
  const quarters = [0, 0, 0, 0];
  for (let seed = 0; seed < 50; seed++) {
    for (const token of random({ ...size, ...nothing, seed }).selectTokens(tokens)) {
      quarters[token >> 10] = (quarters[token >> 10] ?? 0) + 1;
    }
  }
  // 50 runs keep 512 of 4096: 6400 of each quarter, standard deviation 65; six of them are 390.
  for (const count of quarters) expect(Math.abs(count - 6400)).toBeLessThan(390);
});

it('refuses a seed that is no 32-bit count', () => {
  for (const seed of [-1, 0.5, 2 ** 32, NaN]) {
    expect(() => random({ ...size, seed })).toThrow(
      expect.objectContaining({ code: 'invalid-argument' }),
    );
  }
});

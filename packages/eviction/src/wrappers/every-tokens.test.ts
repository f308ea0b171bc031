/** Eviction at intervals: conformance around other policies, and when it happens. */
import { describe, expect, it } from 'vitest';
import { h2o } from '../kv/h2o.js';
import { pagedEviction } from '../kv/paged-eviction.js';
import { describeKvPolicy } from '../testing.js';
import { blocksWith } from '../testing/random-tokens.js';
import { everyTokens } from './every-tokens.js';
import { inChunks } from './in-chunks.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });
const api = { describe, expect, it };

describeKvPolicy(
  'everyTokens of 3 blocks',
  (size) => everyTokens(pagedEviction(size), { intervalTokens: 3 * size.blockSize }),
  api,
  { intervalBlocks: 3 },
);
describeKvPolicy(
  'everyTokens of 2 blocks, of scores that change, in chunks',
  (size) => inChunks(everyTokens(h2o(size), { intervalTokens: 2 * size.blockSize })),
  api,
  { intervalBlocks: 2 },
);
describeKvPolicy(
  'everyTokens of itself',
  (size) => {
    const intervalTokens = size.blockSize;
    return everyTokens(everyTokens(pagedEviction(size), { intervalTokens }), { intervalTokens });
  },
  api,
);

describe('everyTokens', () => {
  const policy = everyTokens(pagedEviction({ budgetTokens: 12, blockSize: 4 }), {
    intervalTokens: 8,
  });

  it('evicts at multiples of the interval, down to the budget', () => {
    for (const [tokenCount, held, isTime] of [
      [24, 20, true],
      [24, 16, true],
      [24, 12, false],
      [28, 20, false],
      [32, 20, true],
    ] as const) {
      const scores = Array.from({ length: held / 4 }, () => 1);
      const blocks = blocksWith(held, scores, { tokenCount });
      expect(policy.mustEvict(blocks)).toBe(isTime);
      expect(policy.selectVictim(blocks) !== undefined).toBe(isTime);
    }
    const unfilled = { tokenCount: 24, cachedTokenCount: 20, blockFilled: false };
    expect(policy.mustEvict(unfilled)).toBe(false);
  });

  it('refuses intervals that are not whole blocks', () => {
    for (const intervalTokens of [0, 3, 6, 4.5, NaN]) {
      expect(() => everyTokens(policy, { intervalTokens })).toThrow(error('invalid-argument'));
    }
  });
});

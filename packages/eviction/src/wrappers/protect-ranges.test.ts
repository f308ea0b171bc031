/** Protected ranges: conformance around other policies, what stays, and budgets too small. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkedPolicy } from '../checked.js';
import { full } from '../kv/full.js';
import { keyDiff } from '../kv/key-diff.js';
import { pagedEviction } from '../kv/paged-eviction.js';
import { streamingLlm } from '../kv/streaming-llm.js';
import { describeKvPolicy, randomTokens } from '../testing.js';
import { blocksWith } from '../testing/random-tokens.js';
import { gatherTokens } from '../tokens.js';
import { inChunks } from './in-chunks.js';
import { protectRanges } from './protect-ranges.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });
const api = { describe, expect, it };
const one = [{ start: 9, end: 10 }];

describeKvPolicy('protectRanges', (size) => protectRanges(pagedEviction(size), one), api);
describeKvPolicy(
  'protectRanges twice, of scores that change',
  (size) => {
    const none = { protectFirstBlocks: 0 };
    return protectRanges(protectRanges(keyDiff({ ...size, ...none }), one), [{ start: 3, end: 4 }]);
  },
  api,
);
describeKvPolicy('protectRanges of nothing', (size) => protectRanges(streamingLlm(size), []), api);
describeKvPolicy('protectRanges of full', (size) => protectRanges(full(size), one), api);

describe('protectRanges', () => {
  it('behaviour 41: protected positions stay in prefill and decode, at the lowest scores', () => {
    const parameters = fc.record({
      start: fc.nat(90),
      length: fc.nat(9),
      tokenCount: fc.integer({ min: 1, max: 100 }),
      isBlockwise: fc.boolean(),
      seed: fc.nat(99),
    });
    fc.assert(
      fc.property(parameters, ({ start, length, tokenCount, isBlockwise, seed }) => {
        const ranges = [{ start, end: start + length }];
        const base = pagedEviction({ budgetTokens: 24, blockSize: 4 });
        const policy = checkedPolicy(protectRanges(isBlockwise ? inChunks(base) : base, ranges));
        const tokens = randomTokens({ tokenCount: tokenCount + 40, layers: 1, kvHeads: 1, seed });
        const valueNorm = tokens.valueNorm?.fill(0, start, start + length) ?? new Float32Array(0);
        const all = { ...tokens, valueNorm };
        const prompt = gatherTokens(all, all.positions.subarray(0, tokenCount));
        let held = [...policy.selectTokens(prompt)];
        const isKept = (): boolean =>
          ranges.every((range) =>
            [...all.positions.subarray(range.start, range.end)].every(
              (position) => position > (held.at(-1) ?? -1) || held.includes(position),
            ),
          );
        expect(isKept()).toBe(true);
        for (let position = tokenCount; position < all.tokenCount; position++) {
          held.push(position);
          const now = gatherTokens(all, held);
          const progress = {
            tokenCount: position + 1,
            cachedTokenCount: held.length,
            blockFilled: held.length % 4 === 0,
          };
          if (!policy.mustEvict(progress)) continue;
          const scores = policy.scoreBlocks(now);
          const choice = policy.selectVictim({ ...progress, positions: now.positions, scores });
          held = held.toSpliced((choice?.victim ?? NaN) * 4, 4);
          expect(isKept()).toBe(true);
        }
        expect(held.length).toBeLessThanOrEqual(27);
      }),
      { numRuns: 150 },
    );
  });

  it('keeps single tokens at prefill and the blocks that hold one at decode', () => {
    const policy = protectRanges(pagedEviction({ budgetTokens: 24, blockSize: 4 }), [
      { start: 9, end: 14 },
    ]);
    const tokens = randomTokens({ tokenCount: 40, layers: 1, kvHeads: 1 });
    const ascending = tokens.positions.map((position) => position + 1);
    const valueNorm = Float32Array.from(ascending);
    const keyNorm = new Float32Array(40).fill(1);
    const kept = [...policy.selectTokens({ ...tokens, valueNorm, keyNorm })];
    expect(kept.slice(0, 10)).toEqual([0, 1, 2, 3, 9, 10, 11, 12, 13, 25]);
    // Blocks 2 and 3 hold positions 9 to 13.
    const blocks = blocksWith(28, [0, 3, 1, 1, 2, 4, 0]);
    expect(policy.selectVictim(blocks)?.victim).toBe(4);
  });

  it('refuses what leaves nothing to evict, counting blocks that a range may straddle', () => {
    const base = pagedEviction({ budgetTokens: 24, blockSize: 4 });
    // Six blocks, two at the ends: a range may lie in four, 13 tokens at most.
    expect(protectRanges(base, [{ start: 10, end: 23 }]).budgetTokens).toBe(24);
    for (const ranges of [
      [{ start: 10, end: 24 }],
      [
        { start: 10, end: 15 },
        { start: 30, end: 36 },
      ],
      [{ start: -1, end: 3 }],
      [{ start: 5, end: 4 }],
      [{ start: 0.5, end: 4 }],
    ]) {
      expect(() => protectRanges(base, ranges)).toThrow(error('invalid-argument'));
    }
    expect(base.protect.ranges).toBeUndefined();
  });
});

describe('checkedPolicy of ranges', () => {
  it('refuses a decision that drops a protected position', () => {
    const base = protectRanges(pagedEviction({ budgetTokens: 24, blockSize: 4 }), [
      { start: 9, end: 11 },
    ]);
    const tokens = randomTokens({ tokenCount: 28 });
    const kept = Uint32Array.from([...tokens.positions].filter((p) => p < 8 || p >= 12));
    const careless = checkedPolicy({ ...base, selectTokens: () => kept });
    expect(() => careless.selectTokens(tokens)).toThrow(error('invariant'));
    const selectVictim = () => ({ victim: 2, reason: 'capacity' as const, score: 0 });
    expect(() => checkedPolicy({ ...base, selectVictim }).selectVictim(blocksWith(28, []))).toThrow(
      error('invariant'),
    );
  });
});

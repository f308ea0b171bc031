/**
 * PagedEviction: the conformance suite, and every score and decision against a float64 reference
 * that is written from the formulas, over random and adversarial norms.
 */
import { seededRandom } from '@vramkit/core/testing';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { KvTokens } from '../needs.js';
import { describeKvPolicy, randomTokens } from '../testing.js';
import { blocksWith } from '../testing/random-tokens.js';
import { pagedEviction, type PagedEvictionOptions } from './paged-eviction.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });
const api = { describe, expect, it };

describeKvPolicy('pagedEviction', pagedEviction, api);
describeKvPolicy(
  'pagedEviction, paper literal',
  (size) => pagedEviction({ ...size, paperLiteral: true }),
  api,
);
describeKvPolicy(
  'pagedEviction, no block in the middle',
  (size) => pagedEviction({ ...size, protectFirstBlocks: 2 }),
  api,
);

/** S_i: the mean over layers of the mean over heads of ||V|| / max(||K||, eps). */
function referenceScores(tokens: KvTokens, epsilon: number): number[] {
  const { tokenCount, layers, kvHeads, keyNorm, valueNorm } = tokens;
  const average = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  const range = (count: number): number[] => Array.from({ length: count }, (_, index) => index);
  return range(tokenCount).map((token) =>
    average(
      range(layers).map((layer) =>
        average(
          range(kvHeads).map((head) => {
            const at = token * layers * kvHeads + layer * kvHeads + head;
            return (valueNorm?.[at] ?? NaN) / Math.max(keyNorm?.[at] ?? NaN, epsilon);
          }),
        ),
      ),
    ),
  );
}

/** Which tokens stay: drop the lowest one at a time, the older one of two equals. */
function referenceKept(scores: number[], protectedTokens: Set<number>, keep: number): number[] {
  let left = scores.map((_, token) => token);
  while (left.length > keep) {
    const candidates = left.filter((token) => !protectedTokens.has(token));
    const lowest = Math.min(...candidates.map((token) => scores[token] ?? NaN));
    const victim = candidates.find((token) => scores[token] === lowest);
    left = left.filter((token) => token !== victim);
  }
  return left;
}

/** Norms that make trouble: `kind` chooses how. */
function adversarialTokens(kind: string, tokenCount: number, seed: number): KvTokens {
  const tokens = randomTokens({ tokenCount, seed });
  const random = seededRandom(seed);
  const change = (norms: Float32Array | undefined, by: (norm: number) => number): Float32Array =>
    (norms ?? new Float32Array(0)).map(by);
  const sparse = (norm: number): number => (random.uniform() < 0.3 ? 0 : norm);
  const huge = (): number => 10 ** (random.uniform() * 70 - 35);
  const coarse = (norm: number): number => Math.ceil(norm / 4);
  const by = { zero: () => 0, sparse, huge, equal: () => 2.5, coarse, random: (n: number) => n }[
    kind
  ];
  if (by === undefined) throw new Error(`no kind ${kind}`);
  return {
    ...tokens,
    keyNorm: change(tokens.keyNorm, by),
    valueNorm: change(tokens.valueNorm, by),
  };
}

function protectedSet(tokenCount: number, { blockSize, ...options }: PagedEvictionOptions) {
  const first = (options.protectFirstBlocks ?? 1) * blockSize;
  const last = options.protectLastBlocks ?? 1;
  const rest = last === 0 ? 0 : (tokenCount % blockSize) + last * blockSize;
  const tokens = Array.from({ length: tokenCount }, (_, token) => token);
  return new Set(tokens.filter((token) => token < first || token >= tokenCount - rest));
}

describe('pagedEviction against the formulas', () => {
  const kinds = ['random', 'zero', 'sparse', 'huge', 'equal', 'coarse'];

  it('behaviour 44: token and block scores equal the reference, on hard norms too', () => {
    for (const kind of kinds) {
      for (const tokenCount of [0, 1, 7, 8, 9, 64]) {
        const tokens = adversarialTokens(kind, tokenCount, tokenCount + 1);
        const policy = pagedEviction({ budgetTokens: 24, blockSize: 8, epsilon: 1e-3 });
        const expected = referenceScores(tokens, 1e-3);
        const scores = policy.scoreTokens(tokens);
        const blocks = policy.scoreBlocks(tokens);
        // Both sum the same few float64 values in the same order; 1e-12 relative leaves room for
        // none.
        const close = (actual: number, value: number): void =>
          expect(Math.abs(actual - value)).toBeLessThanOrEqual(1e-12 * Math.abs(value));
        expect(scores.length).toBe(tokenCount);
        scores.forEach((score, token) => close(score, expected[token] ?? NaN));
        blocks.forEach((score, block) => {
          const members = expected.slice(block * 8, block * 8 + 8);
          close(score, members.reduce((a, b) => a + b, 0) / 8);
        });
      }
    }
  });

  it('a block scores by the mean of ratios, not by the ratio of means', () => {
    const policy = pagedEviction({ budgetTokens: 6, blockSize: 2 });
    const tokens: KvTokens = {
      tokenCount: 2,
      layers: 1,
      kvHeads: 1,
      positions: Uint32Array.of(0, 1),
      keyNorm: Float32Array.of(1, 4),
      valueNorm: Float32Array.of(4, 2),
    };
    expect([...policy.scoreBlocks(tokens)]).toEqual([(4 / 1 + 2 / 4) / 2]);
  });

  it('behaviour 40: the tokens kept at prefill are the reference, ties included', () => {
    const options = fc.record({
      kind: fc.constantFrom(...kinds),
      tokenCount: fc.nat(70),
      blockSize: fc.constantFrom(1, 4, 5, 8),
      budgetBlocks: fc.integer({ min: 4, max: 8 }),
      protectFirstBlocks: fc.nat(2),
      protectLastBlocks: fc.nat(2),
      seed: fc.nat(1000),
    });
    fc.assert(
      fc.property(options, ({ kind, tokenCount, seed, budgetBlocks, ...rest }) => {
        const all = { ...rest, budgetTokens: budgetBlocks * rest.blockSize };
        const tokens = adversarialTokens(kind, tokenCount, seed);
        const keep = all.budgetTokens + (tokenCount % all.blockSize);
        const kept = referenceKept(
          referenceScores(tokens, 1e-6),
          protectedSet(tokenCount, all),
          Math.max(keep, 0),
        );
        expect([...pagedEviction(all).selectTokens(tokens)]).toEqual(kept);
      }),
      { numRuns: 300 },
    );
  });

  it('behaviour 42: the victim is the lowest evictable block, and only when a block filled', () => {
    const size = { budgetTokens: 12, blockSize: 4 };
    const state = blocksWith(20, [0, 5, 3, 4, 1]);
    const victim = (policy = pagedEviction(size), changes: Partial<typeof state> = {}) =>
      policy.selectVictim({ ...state, ...changes })?.victim;
    expect(victim()).toBe(2);
    expect(victim(pagedEviction({ ...size, paperLiteral: true }))).toBe(0);
    expect(victim(pagedEviction({ ...size, protectLastBlocks: 0 }))).toBe(4);
    expect(victim(pagedEviction({ ...size, protectLastBlocks: 2 }))).toBe(2);
    expect(victim(pagedEviction({ ...size, protectFirstBlocks: 2 }))).toBe(2);
    expect(victim(undefined, { blockFilled: false })).toBeUndefined();
    expect(victim(undefined, blocksWith(12, [0, 5, 3]))).toBeUndefined();
  });

  it('a partial block behind the newest full one is no candidate and widens the protection', () => {
    const policy = pagedEviction({ budgetTokens: 12, blockSize: 4 });
    expect(policy.selectVictim(blocksWith(22, [0, 5, 3, 4, 1]))?.victim).toBe(2);
  });

  it('behaviour 44: of equal blocks the older goes; of equal tokens too', () => {
    const policy = pagedEviction({ budgetTokens: 12, blockSize: 4 });
    const blocks = blocksWith(20, [1, 1, 1, 1, 1]);
    expect(policy.selectVictim(blocks)).toEqual({ victim: 1, reason: 'capacity', score: 1 });
    const kept = policy.selectTokens(adversarialTokens('equal', 20, 1));
    expect([...kept]).toEqual([0, 1, 2, 3, 12, 13, 14, 15, 16, 17, 18, 19]);
  });

  it('paper literal protects nothing, at prefill as well', () => {
    const tokens = adversarialTokens('random', 40, 3);
    const scores = referenceScores(tokens, 1e-6);
    const policy = pagedEviction({ budgetTokens: 12, blockSize: 4, paperLiteral: true });
    expect([...policy.selectTokens(tokens)]).toEqual(referenceKept(scores, new Set(), 12));
  });

  it('names the token, layer and head of a bad norm', () => {
    const policy = pagedEviction({ budgetTokens: 12, blockSize: 4 });
    const tokens = randomTokens({ tokenCount: 10, layers: 2, kvHeads: 3 });
    const keyNorm = tokens.keyNorm?.with(4 * 6 + 1 * 3 + 2, NaN) ?? new Float32Array(0);
    expect(() => policy.scoreTokens({ ...tokens, keyNorm })).toThrow(
      expect.objectContaining({
        code: 'invalid-argument',
        context: { need: 'keyNorm', token: 4, layer: 1, head: 2, value: 'NaN' },
      }),
    );
  });

  it('refuses budgets below three blocks or below what is protected, with the numbers', () => {
    expect(() => pagedEviction({ budgetTokens: 47, blockSize: 16 })).toThrow(
      expect.objectContaining({
        code: 'invalid-argument',
        context: {
          policy: 'pagedEviction',
          budgetTokens: 47,
          blockSize: 16,
          budgetBlocks: 2,
          neededBlocks: 3,
        },
      }),
    );
    for (const options of [
      { protectFirstBlocks: 3 },
      { protectLastBlocks: 3 },
      { protectFirstBlocks: -1 },
      { protectLastBlocks: 0.5 },
      { paperLiteral: true, protectFirstBlocks: 1 },
      { epsilon: 0 },
      { epsilon: -1 },
      { epsilon: NaN },
      { epsilon: Infinity },
      { blockSize: 0 },
      { blockSize: 2.5 },
      { budgetTokens: 0 },
    ]) {
      expect(() => pagedEviction({ budgetTokens: 48, blockSize: 16, ...options })).toThrow(
        error('invalid-argument'),
      );
    }
    expect(pagedEviction({ budgetTokens: 63, blockSize: 16 }).budgetTokens).toBe(48);
  });
});

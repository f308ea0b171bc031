/** PyramidKV: conformance, the budgets of the layers, and votes against a plain count of them. */
import { describe, expect, it } from 'vitest';
import { describeKvPolicy, measureTokens } from '../testing.js';
import { randomKv } from '../testing/plain-kv.js';
import { pyramidBudgets, pyramidKv } from './pyramid-kv.js';
import { attentionReceived, range, referenceScores, sum } from '../testing/reference.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });
const api = { describe, expect, it };

describeKvPolicy(
  'pyramidKv',
  (size) => pyramidKv({ ...size, windowTokens: size.blockSize, poolTokens: 3 }),
  api,
);

describe('pyramidBudgets', () => {
  it('falls linearly from the first layer to the last, with the mean that is asked for', () => {
    // mean 100, last 100 / 20 = 5, first 195, 4 steps of 47.5; window 20.
    const options = { budgetTokens: 120, windowTokens: 20, tokenCount: 1000, layers: 5, beta: 20 };
    expect(pyramidBudgets(options)).toEqual([215, 167, 120, 72, 25]);
    expect(sum(pyramidBudgets({ ...options, beta: 1 }))).toBe(600);
  });

  it('gives the first layer no more than there is', () => {
    const options = { budgetTokens: 120, windowTokens: 20, tokenCount: 150, layers: 3, beta: 20 };
    expect(pyramidBudgets(options)).toEqual([150, 120, 90]);
    expect(pyramidBudgets({ ...options, tokenCount: 100 })).toEqual([100, 100, 100]);
    expect(pyramidBudgets({ ...options, tokenCount: 10 })).toEqual([20, 20, 20]);
  });

  it('gives a single layer the mean', () => {
    const options = { budgetTokens: 120, windowTokens: 20, tokenCount: 1000, layers: 1, beta: 20 };
    expect(pyramidBudgets(options)).toEqual([120]);
  });
});

it('behaviour 44: a token scores by the heads that would keep it, ties by mean attention', () => {
  const size = { budgetTokens: 24, blockSize: 4, windowTokens: 4, poolTokens: 1, beta: 4 };
  for (const kind of ['random', 'wide', 'equal', 'zero'] as const) {
    const plain = randomKv({ tokenCount: 60, kind, layers: 3, seed: 8 });
    const budgets = pyramidBudgets({ ...size, tokenCount: 60, layers: 3 });
    // As f32, since a tie in what a cache measures is a tie.
    const scoresOf = (head: Parameters<typeof attentionReceived>[0]): number[] => {
      const scores = [...Float32Array.from(attentionReceived(head, 4))];
      return scores.map((score, token) => (token < 56 ? score : Math.max(...scores.slice(0, 56))));
    };
    const votes = referenceScores(plain, (head) => {
      const scores = scoresOf(head);
      const order = range(60).sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0) || b - a);
      const chosen = order.slice(0, budgets[head.layer] ?? 0);
      return scores.map((_, token) => (chosen.includes(token) ? 6 : 0));
    });
    const means = referenceScores(plain, scoresOf);
    const scores = pyramidKv(size).scoreTokens(measureTokens(plain, 4));
    scores.forEach((score, token) => {
      const expected =
        (votes[token] ?? NaN) + (0.499 * (means[token] ?? NaN)) / (1 + (means[token] ?? NaN));
      expect(Math.abs(score - expected)).toBeLessThan(1e-6);
    });
  }
});

it('refuses a beta below 1 and a window beyond the budget', () => {
  for (const options of [{ beta: 0.5 }, { beta: NaN }, { beta: Infinity }, { windowTokens: 48 }]) {
    expect(() => pyramidKv({ budgetTokens: 48, blockSize: 8, ...options })).toThrow(
      error('invalid-argument'),
    );
  }
});

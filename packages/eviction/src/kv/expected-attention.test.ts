/** ExpectedAttention: conformance, scores against the closed form, rotation of the statistics. */
import { seededRandom } from '@vramkit/core/testing';
import { describe, expect, it } from 'vitest';
import type { KvQueries } from '../needs.js';
import { describeKvPolicy, measureTokens, randomTokens } from '../testing.js';
import { KV_KINDS, randomKv } from '../testing/plain-kv.js';
import { expectedAttention } from './expected-attention.js';
import { averageRotation, rotateQueries } from './expected-queries.js';
import {
  dot,
  length,
  mean,
  range,
  referenceScores,
  softmax,
  vectors,
  worstError,
} from '../testing/reference.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });
const size = { budgetTokens: 32, blockSize: 4 };

describeKvPolicy('expectedAttention', expectedAttention, { describe, expect, it });

/** Mean and covariance of a few seeded queries, so that the covariance is one. */
function someQueries(rows: number, heads: number, headDim: number, scale = 1): KvQueries {
  const random = seededRandom(5);
  const samples = range(rows).map(() =>
    range(9).map(() => [...random.float32Array(headDim, scale)]),
  );
  const means = samples.map((each) => range(headDim).map((i) => mean(each.map((q) => q[i] ?? 0))));
  const covariance = samples.flatMap((each, row) =>
    range(headDim * headDim).map((at) => {
      const [i, j] = [Math.floor(at / headDim), at % headDim];
      const off = (q: number[], k: number): number => (q[k] ?? 0) - (means[row]?.[k] ?? 0);
      return mean(each.map((q) => off(q, i) * off(q, j)));
    }),
  );
  return {
    heads,
    mean: Float32Array.from(means.flat()),
    covariance: Float32Array.from(covariance),
  };
}

describe('behaviour 44: scores equal the closed form in float64', () => {
  for (const kind of KV_KINDS) {
    it(`of ${kind} tokens`, () => {
      for (const [tokenCount, sinkTokens, epsilon] of [
        [0, 4, 0],
        [1, 0, 0],
        [3, 4, 0],
        [33, 4, 0.5],
        [33, 0, 0],
      ] as const) {
        const plain = randomKv({ tokenCount, kind, seed: 3 });
        const queries = someQueries(8, 4, 4);
        let head = 0;
        const expected = referenceScores(plain, ({ keys, values }) => {
          const weights = range(2).map(() => {
            const m = vectors(queries.mean, 8, head, 4)[0] ?? [];
            const s = range(4).map((i) => [
              ...queries.covariance.subarray(head * 16 + i * 4, head * 16 + i * 4 + 4),
            ]);
            head++;
            const later = keys.slice(sinkTokens);
            return softmax(
              later.map(
                (k) =>
                  dot(m, k) / 2 +
                  dot(
                    k,
                    s.map((row) => dot(row, k)),
                  ) /
                    8,
              ),
            );
          });
          const scores = values
            .slice(sinkTokens)
            .map((v, i) => (mean(weights.map((each) => each[i] ?? NaN)) + epsilon) * length(v));
          const sinks = Math.min(sinkTokens, keys.length);
          return [...range(sinks).map(() => Math.max(0, ...scores)), ...scores];
        });
        const policy = expectedAttention({ ...size, sinkTokens, epsilon });
        const scores = policy.scoreTokens({ ...measureTokens(plain, 0), queries });
        // Value norms are rounded to f32, 6e-8 relative; wide logits reach 1e7 and lose as much.
        expect(worstError(scores, expected)).toBeLessThan(1e-6);
      }
    });
  }
});

it('keeps what a certain query attends to: no covariance is plain attention', () => {
  const plain = randomKv({ tokenCount: 40, layers: 1, kvHeads: 1, group: 1 });
  const certain = { heads: 1, mean: plain.queries.subarray(-4), covariance: new Float32Array(16) };
  const tokens = measureTokens(plain, 1);
  const policy = expectedAttention({ ...size, sinkTokens: 0 });
  const scores = policy.scoreTokens({ ...tokens, queries: certain });
  const { attention, valueNorm } = tokens;
  const expected = range(40).map((i) => (attention?.[i] ?? NaN) * (valueNorm?.[i] ?? NaN));
  expect(worstError(scores, expected)).toBeLessThan(1e-6);
});

describe('rotateQueries', () => {
  /** A vector of 6 values rotated to a position: two pairs turn, the last two values do not. */
  const turn = (vector: readonly number[], position: number, style: string): number[] => {
    const out = [...vector];
    [0.7, 0.01].forEach((frequency, pair) => {
      const [a, b] = style === 'half' ? [pair, pair + 2] : [2 * pair, 2 * pair + 1];
      const [x, y] = [vector[a] ?? NaN, vector[b] ?? NaN];
      const angle = position * frequency;
      out[a] = x * Math.cos(angle) - y * Math.sin(angle);
      out[b] = x * Math.sin(angle) + y * Math.cos(angle);
    });
    return out;
  };

  it('behaviour 46: a span of one position is the rotation itself, of mean and covariance', () => {
    for (const style of ['half', 'interleaved'] as const) {
      const queries = someQueries(2, 2, 6);
      const rotation = averageRotation([0.7, 0.01], { start: 11, count: 1 });
      const rotated = rotateQueries(queries, rotation, style);
      const means = vectors(queries.mean, 2, 1, 6)[0] ?? [];
      expect(worstError(rotated.mean.subarray(6), turn(means, 11, style))).toBeLessThan(1e-6);
      // x . (R C R') x = (R' x) . C (R' x), and R' turns back.
      const x = [0.3, -1, 2, 0.5, 1, -0.7];
      const form = (covariance: Float32Array, vector: number[]): number =>
        dot(
          vector,
          range(6).map((i) => dot([...covariance.subarray(36 + i * 6, 42 + i * 6)], vector)),
        );
      const expected = form(queries.covariance, turn(x, -11, style));
      expect(Math.abs(form(rotated.covariance, x) - expected)).toBeLessThan(1e-5);
    }
  });

  it('over a span, means are the mean of the rotated', () => {
    const queries = someQueries(1, 1, 6);
    const rotation = averageRotation([0.7, 0.01], { start: 5, count: 40 });
    const rotated = rotateQueries(queries, rotation, 'half');
    const turned = range(40).map((i) => turn([...queries.mean], 5 + i, 'half'));
    const expected = range(6).map((i) => mean(turned.map((each) => each[i] ?? NaN)));
    expect(worstError(rotated.mean, expected)).toBeLessThan(1e-6);
  });

  it('refuses shapes that do not fit and spans of nothing', () => {
    const rotation = averageRotation([0.7, 0.01], { start: 0, count: 1 });
    const queries = someQueries(1, 1, 3);
    expect(() => rotateQueries(queries, rotation, 'half')).toThrow(error('invalid-argument'));
    const short = { ...queries, covariance: queries.covariance.subarray(1) };
    expect(() => rotateQueries(short, rotation, 'half')).toThrow(error('invalid-argument'));
    expect(() => averageRotation([1], { start: 0, count: 0 })).toThrow(error('invalid-argument'));
  });
});

it('refuses options out of range and queries of another shape', () => {
  for (const options of [{ sinkTokens: -1 }, { epsilon: -1 }, { epsilon: Infinity }]) {
    expect(() => expectedAttention({ ...size, ...options })).toThrow(error('invalid-argument'));
  }
  const tokens = randomTokens({ tokenCount: 9, headDim: 4 });
  const queries = someQueries(8, 4, 4);
  expect(() => expectedAttention(size).scoreTokens({ ...tokens, queries })).toThrow(
    error('invalid-argument'),
  );
});

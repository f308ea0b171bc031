/** LagKV: conformance, and ranks against plain weights in float64. */
import { describe, expect, it } from 'vitest';
import { describeKvPolicy, measureTokens } from '../testing.js';
import { KV_KINDS, randomKv } from '../testing/plain-kv.js';
import { lagKv } from './lag-kv.js';
import { mean, range, softmax, sum, vectors } from '../testing/reference.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });
const api = { describe, expect, it };
const size = { budgetTokens: 32, blockSize: 4 };

describeKvPolicy('lagKv', (each) => lagKv({ ...each, lagTokens: 6, sinkTokens: 3 }), api);
describeKvPolicy('lagKv, one partition at most', lagKv, api);

/** Softmax over a partition of the deviation of each token, normalised by the next partition. */
function partitionWeights(partition: number[][], next: number[][], epsilon: number): number[] {
  return softmax(
    partition.map((vector) => {
      const normalised = vector.map((value, i) => {
        const column = next.map((each) => each[i] ?? NaN);
        const least = Math.min(...column);
        return (value - least) / Math.max(Math.max(...column) - least, epsilon);
      });
      const squares = normalised.map((value) => (value - mean(normalised)) ** 2);
      return Math.sqrt(sum(squares) / (vector.length - 1));
    }),
  );
}

describe('behaviour 44: ranks follow the weights in float64', () => {
  for (const kind of KV_KINDS) {
    it(`of ${kind} tokens`, () => {
      const [lag, sinks, tokenCount] = [8, 3, 31];
      const plain = randomKv({ tokenCount, kind, layers: 1, kvHeads: 1, seed: 2 });
      const tokens = measureTokens(plain, 0);
      const scores = lagKv({ ...size, lagTokens: lag, sinkTokens: sinks }).scoreTokens(tokens);
      const [keys, values] = [plain.keys, plain.values].map((each) => vectors(each, 1, 0, 4));
      // Sinks, the last partition and the rest of 4 tokens are above all ranks.
      for (const token of [0, 1, 2, ...range(12).map((i) => 19 + i)]) expect(scores[token]).toBe(1);
      for (const start of [3, 11]) {
        const of = (all: number[][] = []): number[] =>
          partitionWeights(all.slice(start, start + 8), all.slice(start + 8, start + 16), 1e-6);
        const [byKey, byValue] = [of(keys), of(values)];
        const weights = byKey.map((weight, i) => (weight + (byValue[i] ?? NaN)) / 2);
        const ranks = [...scores.subarray(start, start + 8)].map((score) => score * lag);
        expect(ranks.toSorted((a, b) => a - b)).toEqual(range(8));
        for (const i of range(8)) {
          for (const j of range(8)) {
            const difference = (weights[i] ?? NaN) - (weights[j] ?? NaN);
            // Below 1e-12 either order is right: the sums run in another order here.
            if (difference > 1e-12) expect(ranks[i]).toBeGreaterThan(ranks[j] ?? NaN);
          }
        }
      }
    });
  }
});

it('ranks equal tokens by age, and is the mean over heads', () => {
  const plain = randomKv({ tokenCount: 16, kind: 'equal' });
  const policy = lagKv({ ...size, lagTokens: 8, sinkTokens: 0 });
  const scores = [...policy.scoreTokens(measureTokens(plain, 0))];
  expect(scores).toEqual([...range(8).map((i) => i / 8), ...range(8).map(() => 1)]);
});

it('is recency behind the sinks where there are less than two partitions', () => {
  const plain = randomKv({ tokenCount: 18, layers: 1, kvHeads: 1 });
  const policy = lagKv({ ...size, lagTokens: 8, sinkTokens: 3 });
  const scores = [...policy.scoreTokens(measureTokens(plain, 0))];
  expect(scores).toEqual([1, 1, 1, ...range(15).map((i) => i / 15)]);
});

it('takes one channel, and channels that are constant in the next partition', () => {
  const plain = randomKv({ tokenCount: 16, headDim: 1, layers: 1, kvHeads: 1 });
  const policy = lagKv({ ...size, lagTokens: 8, sinkTokens: 0 });
  const flat = { ...plain, keys: plain.keys.map((value, i) => (i < 8 ? value : 3)) };
  for (const each of [plain, flat]) {
    expect(policy.scoreTokens(measureTokens(each, 0)).every(Number.isFinite)).toBe(true);
  }
});

it('refuses options out of range', () => {
  for (const options of [{ lagTokens: 0 }, { sinkTokens: -1 }, { epsilon: 0 }, { epsilon: NaN }]) {
    expect(() => lagKv({ ...size, ...options })).toThrow(error('invalid-argument'));
  }
});

/** Errors of survivors against attention computed anew over them alone. */
import fc from 'fast-check';
import { seededRandom } from '@vramkit/core/testing';
import { describe, expect, it } from 'vitest';
import { attendAll, survivorErrors, type LayerRows } from './attention-error.js';

const HEAD_DIM = 4;

function randomRows(tokens: number, queryCount: number, seed: number): LayerRows {
  const random = seededRandom(seed);
  const rows = (count: number): Float32Array =>
    Float32Array.from({ length: count * HEAD_DIM }, () => 2 * random.uniform() - 1);
  return {
    ...{ heads: 4, kvHeads: 2, headDim: HEAD_DIM },
    queries: rows(queryCount * 4),
    keys: rows((tokens + queryCount) * 2),
    values: rows((tokens + queryCount) * 2),
  };
}

/** Attention of one query of one head over listed tokens. */
function attend(rows: LayerRows, query: number, head: number, seen: readonly number[]): number[] {
  const kvHead = Math.floor(head / 2);
  const part = (array: Float32Array, row: number): number[] => [
    ...array.subarray(row * HEAD_DIM, (row + 1) * HEAD_DIM),
  ];
  const q = part(rows.queries, query * 4 + head);
  const weights = seen.map((token) => {
    const k = part(rows.keys, token * 2 + kvHead);
    return Math.exp(q.reduce((sum, value, d) => sum + value * (k[d] ?? 0), 0) / 2);
  });
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return q.map((_, d) =>
    seen.reduce((sum, token, i) => {
      const value = rows.values[(token * 2 + kvHead) * HEAD_DIM + d] ?? 0;
      return sum + ((weights[i] ?? 0) / total) * value;
    }, 0),
  );
}

describe('survivorErrors', () => {
  it('is the distance from dense attention to attention over the survivors', () => {
    const survivors = fc.uniqueArray(fc.nat(11), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(survivors, fc.integer({ min: 1, max: 3 }), fc.nat(1000), (kept, count, seed) => {
        const rows = randomRows(12, count, seed);
        const { error } = survivorErrors(attendAll(rows), kept);
        for (let head = 0; head < 4; head++) {
          let expected = 0;
          for (let query = 0; query < count; query++) {
            const added = Array.from({ length: query + 1 }, (_, i) => 12 + i);
            const all = Array.from({ length: 12 }, (_, i) => i);
            const full = attend(rows, query, head, [...all, ...added]);
            const left = attend(rows, query, head, [...kept, ...added]);
            const difference = full.map((value, d) => value - (left[d] ?? 0));
            expected += Math.hypot(...difference) / Math.hypot(...full) / count;
          }
          expect(error[head]).toBeCloseTo(expected, 4);
        }
      }),
      { numRuns: 50 },
    );
  });

  it('is nothing, and all attention is kept, where nothing was dropped', () => {
    const rows = randomRows(9, 2, 7);
    const all = Array.from({ length: 9 }, (_, i) => i);
    const { error, keptMass } = survivorErrors(attendAll(rows), all);
    for (const value of error) expect(value).toBeLessThan(1e-6);
    for (const value of keptMass) expect(value).toBeCloseTo(1, 5);
  });
});

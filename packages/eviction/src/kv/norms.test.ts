/** Inverse key norm, value norm and KeyDiff: conformance, and float64 references from K and V. */
import { describe, expect, it } from 'vitest';
import { describeKvPolicy, measureTokens } from '../testing.js';
import { KV_KINDS, randomKv } from '../testing/plain-kv.js';
import { inverseKeyNorm } from './inverse-key-norm.js';
import { keyDiff } from './key-diff.js';
import {
  dot,
  length,
  referenceScores,
  worstError,
  type ReferenceHead,
} from '../testing/reference.js';
import { valueNorm } from './value-norm.js';

const api = { describe, expect, it };
const size = { budgetTokens: 12, blockSize: 4 };

describeKvPolicy('inverseKeyNorm', inverseKeyNorm, api);
describeKvPolicy('valueNorm', valueNorm, api);
describeKvPolicy('keyDiff', keyDiff, api);
describeKvPolicy(
  'keyDiff, nothing protected',
  (each) => keyDiff({ ...each, protectFirstBlocks: 0, protectLastBlocks: 0 }),
  api,
);

/** -cos(K_i, mean of unit keys); a vector without direction is like none. */
function keyDiffReference({ keys }: ReferenceHead): number[] {
  const units = keys.map((key) =>
    key.map((value) => (length(key) === 0 ? 0 : value / length(key))),
  );
  const anchor = (keys[0] ?? []).map(
    (_, i) => units.reduce((total, unit) => total + (unit[i] ?? NaN), 0) / keys.length,
  );
  const scale = length(anchor);
  return units.map((unit) => (scale === 0 ? 0 : -dot(unit, anchor) / scale));
}

describe('behaviour 44: scores equal the formulas in float64, from K and V', () => {
  for (const kind of KV_KINDS) {
    it(`of ${kind} tokens`, () => {
      for (const tokenCount of [0, 1, 2, 7, 33]) {
        const plain = randomKv({ tokenCount, kind, seed: tokenCount + 1 });
        const tokens = measureTokens(plain, 0);
        // What a cache measures is rounded to f32: 6e-8 relative.
        const error = (policy: typeof valueNorm, reference: (head: ReferenceHead) => number[]) =>
          worstError(policy(size).scoreTokens(tokens), referenceScores(plain, reference));
        expect(error(inverseKeyNorm, (head) => head.keys.map((key) => -length(key)))).toBeLessThan(
          1e-7,
        );
        expect(error(valueNorm, (head) => head.values.map(length))).toBeLessThan(1e-7);
        expect(error(keyDiff, keyDiffReference)).toBeLessThan(1e-7);
      }
    });
  }
});

it('behaviour 44: of equal tokens the older goes', () => {
  const tokens = measureTokens(randomKv({ tokenCount: 17, kind: 'equal' }), 0);
  for (const policy of [inverseKeyNorm(size), valueNorm(size), keyDiff(size)]) {
    const kept = [...policy.selectTokens(tokens)];
    expect(kept).toEqual([0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
  }
});

it('keyDiff keeps the one key that differs', () => {
  const plain = randomKv({ tokenCount: 24, kind: 'equal', layers: 1, kvHeads: 1 });
  const keys = plain.keys.map((value, index) => (Math.floor(index / 4) === 9 ? -value : value));
  expect([...keyDiff(size).selectTokens(measureTokens({ ...plain, keys }, 0))]).toContain(9);
});

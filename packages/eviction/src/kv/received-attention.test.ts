/** H2O, TOVA and SnapKV: conformance, and float64 references from Q and K. */
import { describe, expect, it } from 'vitest';
import { describeKvPolicy, measureTokens, randomTokens } from '../testing.js';
import { KV_KINDS, randomKv } from '../testing/plain-kv.js';
import { h2o } from './h2o.js';
import {
  attentionReceived,
  range,
  referenceScores,
  sum,
  worstError,
  type ReferenceHead,
} from '../testing/reference.js';
import { snapKv } from './snap-kv.js';
import { tova } from './tova.js';

const api = { describe, expect, it };
const size = { budgetTokens: 32, blockSize: 4 };
const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });
const small = (each: { budgetTokens: number; blockSize: number }) =>
  snapKv({ ...each, windowTokens: each.blockSize, poolTokens: 3 });

describeKvPolicy('h2o', h2o, api);
describeKvPolicy('tova', tova, api);
describeKvPolicy('snapKv', small, api);

/** Pooled attention of the last `window` queries; the window scores as the highest. */
function snapKvReference(head: ReferenceHead, window: number, pool: number): number[] {
  const received = attentionReceived(head, window);
  const earlier = Math.max(0, received.length - window);
  const padded = [...range(pool >> 1).map(() => 0), ...received.slice(0, earlier)];
  const pooled = range(earlier).map((token) => sum(padded.slice(token, token + pool)) / pool);
  return received.map((_, token) => pooled[token] ?? Math.max(0, ...pooled));
}

describe('behaviour 44: scores equal the formulas in float64, from Q and K', () => {
  for (const kind of KV_KINDS) {
    it(`of ${kind} tokens`, () => {
      for (const tokenCount of [0, 1, 2, 9, 33]) {
        const plain = randomKv({ tokenCount, kind, seed: tokenCount + 1 });
        for (const [policy, reference] of [
          [h2o(size), (head) => attentionReceived(head, Infinity)],
          [tova(size), (head) => attentionReceived(head, 1)],
          [snapKv({ ...size, windowTokens: 6 }), (head) => snapKvReference(head, 6, 5)],
          [
            snapKv({ ...size, windowTokens: 1, poolTokens: 1 }),
            (head) => snapKvReference(head, 1, 1),
          ],
          [
            snapKv({ ...size, windowTokens: 3, poolTokens: 9 }),
            (head) => snapKvReference(head, 3, 9),
          ],
        ] as const satisfies [unknown, (head: ReferenceHead) => number[]][]) {
          const tokens = measureTokens(plain, policy.attentionQueries);
          const worst = worstError(policy.scoreTokens(tokens), referenceScores(plain, reference));
          // Attention is rounded to f32, and its logits reach 1e6 with wide tokens.
          expect(worst).toBeLessThan(1e-6);
        }
      }
    });
  }
});

it('h2o gives half of the budget to recent tokens', () => {
  const lastTokens = (budgetTokens: number, blockSize: number): number =>
    h2o({ budgetTokens, blockSize }).protect.lastTokens;
  expect(lastTokens(64, 8)).toBe(32);
  expect(lastTokens(63, 8)).toBe(24);
  expect(lastTokens(48, 16)).toBe(16);
  expect(h2o({ ...size, protectLastBlocks: 2 }).protect.lastTokens).toBe(8);
});

it('each says how many queries it observes', () => {
  expect(h2o(size).attentionQueries).toBe(Infinity);
  expect(tova(size).attentionQueries).toBe(1);
  expect(snapKv({ ...size, windowTokens: 7 }).attentionQueries).toBe(7);
});

it('snapKv protects its window in whole blocks, and keeps neighbours of what is attended', () => {
  expect(snapKv({ ...size, windowTokens: 7 }).protect.lastTokens).toBe(8);
  const tokens = randomTokens({ tokenCount: 44, layers: 1, kvHeads: 1 });
  const attention = new Float32Array(44).fill(0.01).fill(1, 20, 21).fill(9, 40);
  const kept = [...snapKv({ ...size, windowTokens: 4 }).selectTokens({ ...tokens, attention })];
  expect(kept).toEqual(expect.arrayContaining([18, 19, 20, 21, 22, 40, 41, 42, 43]));
});

it('refuses windows and pools that cannot be', () => {
  for (const options of [
    { windowTokens: 0 },
    { windowTokens: 2.5 },
    { windowTokens: 40 },
    { poolTokens: 0 },
    { poolTokens: 4 },
  ]) {
    expect(() => snapKv({ ...size, windowTokens: 4, ...options })).toThrow(
      error('invalid-argument'),
    );
  }
});

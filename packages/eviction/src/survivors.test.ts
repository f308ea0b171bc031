/**
 * What is left after an eviction: the same as if chosen block by block, and attention over it the
 * same as over everything with the rest masked.
 */
import { seededRandom } from '@vramkit/core/testing';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dot, range, softmax, sum, vectors } from './testing/reference.js';
import { KV_POLICY_NAMES, kvPolicy } from './registry.js';
import { measureTokens, randomTokens } from './testing.js';
import { KV_KINDS, randomKv, type KvKind } from './testing/plain-kv.js';
import { gatherTokens } from './tokens.js';

const options = { budgetTokens: 16, blockSize: 4, windowTokens: 4, lagTokens: 5 };
const nothing = { protectFirstBlocks: 0, protectLastBlocks: 0 };

describe('behaviour 46', () => {
  const perToken = KV_POLICY_NAMES.filter(
    (name) => name !== 'full' && kvPolicy(name, options).blockScore === 'when-filled',
  );

  it('there are policies whose scores depend on the token alone', () => {
    expect(perToken).toEqual([
      'random',
      'streamingLlm',
      'inverseKeyNorm',
      'valueNorm',
      'pagedEviction',
    ]);
  });

  it('choosing block by block keeps what choosing once keeps, ties included', () => {
    const parameters = fc.record({
      name: fc.constantFrom(...perToken.filter((name) => name !== 'streamingLlm')),
      kind: fc.constantFrom(...KV_KINDS),
      blocks: fc.integer({ min: 4, max: 12 }),
      seed: fc.nat(999),
    });
    fc.assert(
      fc.property(parameters, ({ name, kind, blocks, seed }) => {
        const policy = kvPolicy(name, { ...options, ...nothing });
        const plain = randomKv({ tokenCount: blocks * 4, kind, seed, layers: 1 });
        const tokens = measureTokens(plain, 0);
        let kept = range(16);
        for (const block of range(blocks).slice(4)) {
          const candidates = [...kept, ...range(4).map((i) => block * 4 + i)];
          const chosen = policy.selectTokens(gatherTokens(tokens, candidates));
          kept = [...chosen].map((index) => candidates[index] ?? NaN);
        }
        expect(kept).toEqual([...policy.selectTokens(tokens)]);
      }),
      { numRuns: 200 },
    );
  });
});

describe('behaviour 47', () => {
  it('attention over the survivors is attention over all with the rest masked', () => {
    const random = seededRandom(4);
    const none = new Float32Array(0);
    for (const name of KV_POLICY_NAMES) {
      for (const kind of ['random', 'sparse', 'wide'] as const satisfies readonly KvKind[]) {
        const plain = randomKv({ tokenCount: 43, kind, layers: 1, kvHeads: 1, group: 1 });
        const policy = kvPolicy(name, options);
        const { queries } = randomTokens({ tokenCount: 1, layers: 1, kvHeads: 1 });
        const tokens = {
          ...measureTokens(plain, policy.attentionQueries),
          ...(queries && { queries }),
        };
        const kept = policy.selectTokens(tokens);
        const left = gatherTokens(tokens, kept);
        expect([...left.positions]).toEqual([...kept]);
        const [keys, values] = [tokens.keys, tokens.values].map((each) =>
          vectors(each ?? none, 1, 0, 4),
        );
        const [leftKeys, leftValues] = [left.keys, left.values].map((each) =>
          vectors(each ?? none, 1, 0, 4),
        );
        const query = [...random.float32Array(4)];
        const read = (weights: number[], rows: number[][] = []): number[] =>
          range(4).map((i) =>
            sum(rows.map((row, token) => (weights[token] ?? NaN) * (row[i] ?? NaN))),
          );
        const masked = (keys ?? []).map((key, token) =>
          kept.includes(token) ? dot(query, key) / 2 : -Infinity,
        );
        const dense = read(softmax(masked), values);
        const compact = read(
          softmax((leftKeys ?? []).map((key) => dot(query, key) / 2)),
          leftValues,
        );
        // The same terms in the same order, but for zeros in between.
        compact.forEach((value, i) => expect(value).toBeCloseTo(dense[i] ?? NaN, 10));
      }
    }
  });
});

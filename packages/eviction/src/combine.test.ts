/** Combining parts, binding to a cache, and what a bound policy lets through. */
import { describe, expect, it } from 'vitest';
import { meanOverLayersAndHeads } from './aggregation.js';
import { checkedPolicy } from './checked.js';
import { bindPolicy, combine, type KvPolicyParts } from './combine.js';
import { full } from './kv/full.js';
import { pagedEviction } from './kv/paged-eviction.js';
import { streamingLlm } from './kv/streaming-llm.js';
import type { KvPolicy, KvScore } from './policy.js';
import { describeKvPolicy, randomTokens } from './testing.js';
import { blocksWith } from './testing/random-tokens.js';
import { statistic } from './tokens.js';
import { whenBlockFills } from './trigger.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });
const api = { describe, expect, it };

/** Attention received: a score that changes with every query. */
const attention: KvScore = {
  needs: ['attention'],
  attentionQueries: 32,
  blockScore: 'when-triggered',
  blockMean: undefined,
  score(tokens, out) {
    out.set(statistic(tokens, 'attention'));
  },
};

/** Distance of each key from the mean key: a score that depends on all tokens. */
const keyDistance: KvScore = {
  needs: ['keys'],
  attentionQueries: 0,
  blockScore: 'when-triggered',
  blockMean: undefined,
  score(tokens, out) {
    const keys = statistic(tokens, 'keys');
    const headDim = keys.length / Math.max(1, out.length);
    const mean = keys.reduce((sum, value) => sum + value, 0) / Math.max(1, keys.length);
    for (let row = 0; row < out.length; row++) {
      out[row] = keys
        .subarray(row * headDim, (row + 1) * headDim)
        .reduce((sum, value) => sum + Math.abs(value - mean), 0);
    }
  },
};

const parts: Omit<KvPolicyParts, 'budgetTokens' | 'blockSize'> = {
  name: 'attention',
  score: attention,
  aggregation: meanOverLayersAndHeads,
  trigger: whenBlockFills,
  protect: { firstTokens: 3, lastTokens: 5 },
};
const roomy = { ...parts, protect: { firstTokens: 1, lastTokens: 1 } };

describeKvPolicy('combine: scores that change', (size) => combine({ ...roomy, ...size }), api);
describeKvPolicy(
  'combine: scores of keys',
  (size) => combine({ ...roomy, score: keyDistance, ...size }),
  api,
);
describeKvPolicy('checkedPolicy', (size) => checkedPolicy(pagedEviction(size)), api);
describeKvPolicy(
  'checkedPolicy of itself',
  (s) => checkedPolicy(checkedPolicy(streamingLlm(s))),
  api,
);
describeKvPolicy('checkedPolicy of full', (size) => checkedPolicy(full(size)), api);

describe('combine', () => {
  it('rounds protections outward to whole blocks in both phases', () => {
    const policy = combine({ ...parts, budgetTokens: 16, blockSize: 4 });
    const tokens = randomTokens({ tokenCount: 30, layers: 1, kvHeads: 1 });
    // The score peaks at token 15. Of 4 .. 23 eight stay; 11 and 19 score alike, and the older
    // goes.
    const peak = Float32Array.from({ length: 30 }, (_, token) => 15 - Math.abs(15 - token));
    const kept = policy.selectTokens({ ...tokens, attention: peak });
    expect([...kept]).toEqual([
      ...[0, 1, 2, 3],
      ...[12, 13, 14, 15, 16, 17, 18, 19],
      ...[24, 25, 26, 27, 28, 29],
    ]);
    expect(policy.selectVictim(blocksWith(20, [-9, 4, 3, -8, -7]))?.victim).toBe(2);
  });

  it('uses the aggregation and the trigger it is given', () => {
    const first = combine({
      ...roomy,
      budgetTokens: 12,
      blockSize: 4,
      aggregation: (scores, tokens) =>
        Float64Array.from({ length: tokens.tokenCount }, (_, token) => scores[token * 6] ?? NaN),
      trigger: (progress) => progress.tokenCount % 10 === 0,
    });
    const tokens = randomTokens({ tokenCount: 8 });
    const expected = [...(tokens.attention ?? [])].filter((_, index) => index % 6 === 0);
    expect([...first.scoreTokens(tokens)]).toEqual(expected);
    const at = (tokenCount: number) =>
      first.selectVictim(blocksWith(16, [1, 3, 2, 4], { blockFilled: false, tokenCount }));
    expect(at(39)).toBeUndefined();
    expect(at(40)?.victim).toBe(2);
  });

  it('refuses an aggregation or score that gives too few values, or values not finite', () => {
    const tokens = randomTokens({ tokenCount: 8 });
    for (const aggregation of [() => new Float64Array(7), () => new Float64Array(8).fill(NaN)]) {
      const policy = combine({ ...roomy, budgetTokens: 12, blockSize: 4, aggregation });
      expect(() => policy.selectTokens(tokens)).toThrow(error('invariant'));
    }
  });
});

describe('bindPolicy', () => {
  const policy = pagedEviction({ budgetTokens: 48, blockSize: 16 });

  it('rejects needs that the cache cannot fill, naming them', () => {
    const cache = { blockSize: 16, provides: ['keyNorm'], attentionQueries: 0 } as const;
    expect(() => bindPolicy(policy, cache)).toThrow(
      expect.objectContaining({
        code: 'unsupported',
        context: { policy: 'pagedEviction', missing: ['valueNorm'], provides: ['keyNorm'] },
      }),
    );
    const observing = combine({ ...roomy, budgetTokens: 48, blockSize: 16 });
    for (const attentionQueries of [0, 31]) {
      expect(() =>
        bindPolicy(observing, { ...cache, provides: ['attention'], attentionQueries }),
      ).toThrow(error('unsupported'));
    }
    for (const attentionQueries of [32, Infinity]) {
      const bound = bindPolicy(observing, { ...cache, provides: ['attention'], attentionQueries });
      expect(bound.name).toBe('attention');
    }
  });

  it('rejects another block size', () => {
    const provides = ['keyNorm', 'valueNorm'] as const;
    expect(() => bindPolicy(policy, { blockSize: 8, provides, attentionQueries: 0 })).toThrow(
      error('invalid-argument'),
    );
    expect(bindPolicy(policy, { blockSize: 16, provides, attentionQueries: 0 }).needs).toEqual(
      provides,
    );
  });

  it('gives an error for each decision that breaks what the policy declares', () => {
    const base = streamingLlm({ budgetTokens: 12, blockSize: 4 });
    const bind = (changes: Partial<KvPolicy>): KvPolicy =>
      bindPolicy({ ...base, ...changes }, { blockSize: 4, provides: [], attentionQueries: 0 });
    const tokens = randomTokens({ tokenCount: 20 });
    const good = [...base.selectTokens(tokens)];
    for (const kept of [
      good.slice(1),
      good.slice(0, -1),
      good.toReversed(),
      [...good, 20],
      [0, ...good],
      good.with(4, 11.5),
      [...tokens.positions],
    ]) {
      // A policy in plain JavaScript may return any list; the type holds typed arrays only.
      const selectTokens = () => kept as unknown as Uint32Array;
      expect(() => bind({ selectTokens }).selectTokens(tokens)).toThrow(error('invariant'));
    }
    const state = blocksWith(18, [1, 2, 3, 4]);
    for (const victim of [-1, 0, 2, 3, 4, 9, 1.5, NaN]) {
      const selectVictim = () => ({ victim, reason: 'capacity' as const, score: 0 });
      expect(() => bind({ selectVictim }).selectVictim(state)).toThrow(error('invariant'));
    }
    expect(bind({}).selectVictim(state)).toEqual({ victim: 1, reason: 'capacity', score: 2 });
  });
});

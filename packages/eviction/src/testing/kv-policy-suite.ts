/**
 * The conformance suite of KV policies: what every {@link KvPolicy} must do, whatever it scores.
 *
 * The suite depends on no test library: the caller hands in `describe`, `it` and `expect`, and
 * those of vitest and jest fit. Data is seeded, so that a failure repeats.
 */
import { isVramError } from '@vramkit/core';
import type { TestApi } from '@vramkit/core/testing';
import { declarationOf } from '../decide.js';
import type { KvBlockMean, KvNeed, KvTokens } from '../needs.js';
import type { KvPolicy } from '../policy.js';
import { evictableBlocks, evictableIndices } from '../protection.js';
import { gatherTokens, type KvArrayNeed } from '../tokens.js';
import { randomTokens } from './random-tokens.js';

const SIZES = [
  { budgetTokens: 12, blockSize: 4 },
  { budgetTokens: 64, blockSize: 8 },
  { budgetTokens: 103, blockSize: 16 },
  { budgetTokens: 7, blockSize: 1 },
] as const;

/** Makes the policy under test for a budget and a block size. */
export type KvPolicyFactory = (options: {
  readonly budgetTokens: number;
  readonly blockSize: number;
}) => KvPolicy;

/** Options of {@link describeKvPolicy}. */
export interface KvPolicySuiteOptions {
  /** Blocks that fill between two decisions at decode. Default: 1. */
  readonly intervalBlocks?: number;
}

/**
 * Declares the suite `name` for one policy. A policy whose `budgetTokens` is `Infinity` must keep
 * everything; the rules of a budget do not apply to it.
 *
 * @example
 * ```ts
 * import { describe, expect, it } from 'vitest';
 * import { streamingLlm } from '@vramkit/eviction';
 * import { describeKvPolicy } from '@vramkit/eviction/testing';
 * describeKvPolicy('streamingLlm', streamingLlm, { describe, expect, it });
 * ```
 */
export function describeKvPolicy(
  name: string,
  factory: KvPolicyFactory,
  api: TestApi,
  options: KvPolicySuiteOptions = {},
): void {
  const suite = new Suite(api, factory, options.intervalBlocks ?? 1);
  api.describe(name, () => {
    suite.registerScores();
    suite.registerBadInput();
    if (factory(SIZES[0]).budgetTokens === Infinity) suite.registerUnbounded();
    else {
      suite.registerPrefill();
      suite.registerDecode();
    }
  });
}

class Suite {
  readonly #api: TestApi;
  readonly #make: KvPolicyFactory;
  readonly #intervalBlocks: number;

  constructor(api: TestApi, factory: KvPolicyFactory, intervalBlocks: number) {
    this.#api = api;
    this.#make = factory;
    this.#intervalBlocks = intervalBlocks;
  }

  registerScores(): void {
    this.#api.it('behaviour 44: equal input gives equal, finite scores and equal decisions', () => {
      for (const size of SIZES) {
        const tokens = randomTokens({ tokenCount: 150, seed: size.blockSize });
        const [first, second] = [this.#make(size), this.#make(size)];
        const scores = first.scoreTokens(tokens);
        this.#same('finite scores', scores.filter(Number.isFinite).length, 150);
        this.#same('scores', second.scoreTokens(tokens), scores);
        this.#same('kept', second.selectTokens(tokens), first.selectTokens(tokens));
        this.#same('block scores', second.scoreBlocks(tokens), first.scoreBlocks(tokens));
      }
    });

    this.#api.it('scores one block per full block, and takes no tokens at all', () => {
      const policy = this.#make(SIZES[0]);
      for (const tokenCount of [0, 1, 3, 4, 5, 11, 12]) {
        const tokens = randomTokens({ tokenCount });
        this.#same('blocks', policy.scoreBlocks(tokens).length, Math.floor(tokenCount / 4));
        this.#same('kept', policy.selectTokens(tokens).length, tokenCount);
      }
    });

    this.#api.it(
      'scores a filled block alone as among all, and by the mean that it declares',
      () => {
        for (const size of SIZES) {
          const policy = this.#make(size);
          const tokens = randomTokens({ tokenCount: 5 * size.blockSize, seed: 3 });
          const all = policy.scoreBlocks(tokens);
          for (let block = 0; block < 5; block++) {
            const from = block * size.blockSize;
            const indices = Array.from({ length: size.blockSize }, (_, i) => from + i);
            const one = gatherTokens(tokens, indices);
            if (policy.blockScore === 'when-filled') {
              this.#close(`block ${block} alone`, policy.scoreBlocks(one)[0], all[block]);
            }
            if (policy.blockMean !== undefined) {
              this.#close(
                `mean of block ${block}`,
                declaredMean(policy.blockMean, one),
                all[block],
              );
            }
          }
        }
      },
    );
  }

  registerBadInput(): void {
    this.#api.it(
      'refuses needed values that are absent, too few, NaN, infinite or negative',
      () => {
        const policy = this.#make(SIZES[0]);
        const tokens = randomTokens({ tokenCount: 40 });
        for (const need of policy.needs) {
          const others = Object.entries(tokens).filter(([name]) => name !== need);
          // A foreign boundary: what JavaScript callers hand in, less one array.
          const without = Object.fromEntries(others) as unknown as KvTokens;
          this.#refused(policy, without, `no ${need}`);
          for (const changed of badTokens(tokens, need)) this.#refused(policy, changed, `${need}`);
        }
        const { positions } = tokens;
        this.#refused(policy, { ...tokens, positions: positions.subarray(1) }, 'short positions');
        this.#refused(policy, { ...tokens, positions: positions.with(3, 2) }, 'equal positions');
      },
    );
  }

  registerUnbounded(): void {
    this.#api.it('has no budget: prefill and decode keep everything', () => {
      const policy = this.#make(SIZES[0]);
      const tokens = randomTokens({ tokenCount: 50 });
      this.#same('kept', policy.selectTokens(tokens), tokens.positions);
      this.#same('held', this.#decode(policy, tokens, 40).at(-1), 90);
    });
  }

  registerPrefill(): void {
    this.#api.it(
      'behaviour 40: keeps all within the budget, exactly budget + rest above it',
      () => {
        for (const size of SIZES) {
          const policy = this.#make(size);
          const most = randomTokens({ tokenCount: size.budgetTokens + 3 * size.blockSize });
          for (let count = 0; count <= most.tokenCount; count += count % 5 === 2 ? 3 : 1) {
            const kept = policy.selectTokens(gatherTokens(most, most.positions.subarray(0, count)));
            const target = policy.budgetTokens + (count % size.blockSize);
            this.#same(`kept of ${count}`, kept.length, Math.min(count, target));
            const ordered = kept.every((token, index) => token > (kept[index - 1] ?? -1));
            this.#same('ascending', ordered && (kept.at(-1) ?? -1) < count, true);
          }
        }
      },
    );

    this.#api.it('behaviour 40: no token that went scores above one that could have gone', () => {
      for (const size of SIZES) {
        const policy = this.#make(size);
        const tokens = randomTokens({ tokenCount: size.budgetTokens * 3 + 1 });
        const scores = policy.scoreTokens(tokens);
        const kept = new Set(policy.selectTokens(tokens));
        const candidates = evictableIndices(policy, tokens.positions);
        const scoresOf = (isKept: boolean): number[] =>
          candidates
            .filter((token) => kept.has(token) === isKept)
            .map((token) => scores[token] ?? NaN);
        const inOrder = Math.min(...scoresOf(true)) >= Math.max(...scoresOf(false));
        this.#same('lowest kept is not below highest evicted', inOrder, true);
      }
    });

    this.#api.it('behaviour 41: keeps every protected token', () => {
      for (const size of SIZES) {
        const policy = this.#make(size);
        for (const tokenCount of [size.budgetTokens * 2, size.budgetTokens * 4 + 1]) {
          const tokens = randomTokens({ tokenCount, seed: 9 });
          const kept = new Set(policy.selectTokens(tokens));
          const evictable = new Set(evictableIndices(policy, tokens.positions));
          const guarded = [...tokens.positions].filter((token) => !evictable.has(token));
          this.#same(
            'kept of the protected',
            guarded.filter((token) => kept.has(token)),
            guarded,
          );
        }
      }
    });
  }

  registerDecode(): void {
    this.#api.it(
      'behaviour 42: blocks go only when one filled, no more than are over budget: a bound',
      () => {
        for (const size of SIZES) {
          const policy = this.#make(size);
          for (const tokenCount of [1, size.blockSize * 2 + 1, size.budgetTokens * 3 + 5]) {
            const tokens = randomTokens({ tokenCount, seed: 5 });
            const held = this.#decode(policy, tokens, size.budgetTokens * 2);
            const limit = policy.budgetTokens + size.blockSize * this.#intervalBlocks - 1;
            this.#same(`within ${limit}`, Math.max(...held) <= limit, true);
            this.#same('no more went than had to', (held.at(-1) ?? 0) >= policy.budgetTokens, true);
          }
        }
      },
    );

    this.#api.it('behaviour 41: never chooses a protected block, however low its score', () => {
      for (const size of SIZES) {
        const policy = this.#make(size);
        const cachedTokenCount = policy.budgetTokens + 2 * size.blockSize;
        const count = cachedTokenCount / size.blockSize;
        const positions = Uint32Array.from({ length: cachedTokenCount }, (_, index) => index);
        const evictable = evictableBlocks(policy, positions);
        for (let lowest = 0; lowest < count; lowest++) {
          const scores = Array.from({ length: count }, (_, block) =>
            block === lowest ? -1e9 : block,
          );
          const tokenCount = size.blockSize * this.#intervalBlocks * 1000;
          const progress = { tokenCount, cachedTokenCount, blockFilled: true };
          const victim = policy.selectVictim({ ...progress, positions, scores })?.victim ?? -1;
          this.#same('evictable', evictable.includes(victim), true);
        }
      }
    });

    this.#api.it('refuses block scores of wrong number or not finite', () => {
      const policy = this.#make(SIZES[0]);
      const positions = Uint32Array.from({ length: 16 }, (_, index) => index);
      const state = { tokenCount: 99, cachedTokenCount: 16, blockFilled: true, positions };
      for (const scores of [[], [1, 2, 3], [1, 2, 3, 4, 5], [1, NaN, 3, 4], [1, 2, -Infinity, 4]]) {
        this.#invalid(`scores ${scores.join()}`, () => policy.selectVictim({ ...state, scores }));
      }
      const few = { ...state, positions: positions.subarray(1), scores: [1, 2, 3, 4] };
      this.#invalid('few positions', () => policy.selectVictim(few));
    });
  }

  /**
   * Prefills `tokens` and appends `steps` more, the way a cache would; blocks go exactly where an
   * append ends an interval with more than the budget held. Returns the tokens held after each
   * step.
   */
  #decode(policy: KvPolicy, tokens: KvTokens, steps: number): number[] {
    const { blockSize, budgetTokens, blockScore } = policy;
    const all = randomTokens({ tokenCount: tokens.tokenCount + steps, seed: 77 });
    const declared = declarationOf(policy);
    let held = [...policy.selectTokens(tokens)];
    let scores = [...policy.scoreBlocks(gatherTokens(all, held))];
    return Array.from({ length: steps }, (_, step) => {
      held.push(tokens.tokenCount + step);
      const tokenCount = tokens.tokenCount + step + 1;
      const blockFilled = held.length % blockSize === 0;
      const isTime = blockFilled && tokenCount % (blockSize * this.#intervalBlocks) === 0;
      if (blockFilled && blockScore === 'when-filled') {
        scores.push(...policy.scoreBlocks(gatherTokens(all, held.slice(-blockSize))));
      }
      for (;;) {
        const progress = { tokenCount, cachedTokenCount: held.length, blockFilled };
        const mustGo = isTime && held.length > budgetTokens;
        this.#same(`must evict with ${held.length}`, policy.mustEvict(progress), mustGo);
        if (!mustGo && !blockFilled) return held.length;
        if (blockScore === 'when-triggered')
          scores = [...policy.scoreBlocks(gatherTokens(all, held))];
        const choice = policy.selectVictim({
          ...progress,
          positions: Uint32Array.from(held),
          scores,
        });
        this.#same(`eviction with ${held.length}`, choice !== undefined, mustGo);
        if (choice === undefined) return held.length;
        const { victim, reason, score } = choice;
        this.#same('choice', { reason, score }, { reason: 'capacity', score: scores[victim] });
        held = held.toSpliced(victim * blockSize, blockSize);
        scores = scores.toSpliced(victim, 1);
        this.#same('declaration', declarationOf(policy), declared);
      }
    });
  }

  /** Expects deep equality; `what` shows in the failure. */
  #same(what: string, actual: unknown, expected: unknown): void {
    this.#api.expect({ [what]: actual }).toEqual({ [what]: expected });
  }

  /** Expects equality within 1e-12 of the magnitude: sums in another order. */
  #close(what: string, actual: number | undefined, expected: number | undefined): void {
    const [a, b] = [actual ?? NaN, expected ?? NaN];
    const isClose = Math.abs(a - b) <= 1e-12 * Math.max(1, Math.abs(b));
    this.#same(`${what}: ${a} for ${b}`, isClose, true);
  }

  #refused(policy: KvPolicy, tokens: KvTokens, what: string): void {
    this.#invalid(`${what}, scoreTokens`, () => policy.scoreTokens(tokens));
    this.#invalid(`${what}, selectTokens`, () => policy.selectTokens(tokens));
    this.#invalid(`${what}, scoreBlocks`, () => policy.scoreBlocks(tokens));
  }

  #invalid(what: string, call: () => unknown): void {
    let outcome: unknown = 'returned';
    try {
      call();
    } catch (error) {
      outcome = isVramError(error) ? error.code : error;
    }
    this.#same(what, outcome, 'invalid-argument');
  }
}

/** The mean that a policy declares its block score to be. */
function declaredMean(mean: KvBlockMean, tokens: KvTokens): number {
  const array = (need: KvArrayNeed): Float32Array => tokens[need] ?? new Float32Array(0);
  const { statistic, factor, epsilon } = mean;
  const values =
    statistic === 'valueOverKeyNorm'
      ? Array.from(
          array('valueNorm'),
          (norm, row) => norm / Math.max(array('keyNorm')[row] ?? NaN, epsilon),
        )
      : Array.from(array(statistic));
  return (factor * values.reduce((sum, value) => sum + value, 0)) / values.length;
}

/** Tokens with a need that is too short, and with each value in it that may not be. */
function badTokens(tokens: KvTokens, need: KvNeed): readonly KvTokens[] {
  const spoil = (
    array: Float32Array = new Float32Array(0),
    values: readonly number[],
  ): Float32Array[] => [
    array.subarray(1),
    ...values.map((value) => array.with(array.length - 1, value)),
  ];
  const infinite = [NaN, Infinity, -Infinity];
  const { queries } = tokens;
  if (need === 'queries') {
    if (queries === undefined) return [];
    return [
      ...spoil(queries.mean, infinite).map((mean) => ({ ...queries, mean })),
      ...spoil(queries.covariance, infinite).map((covariance) => ({ ...queries, covariance })),
      { ...queries, heads: 5 },
    ].map((changed) => ({ ...tokens, queries: changed }));
  }
  const mayBeNegative = need === 'keys' || need === 'values' || need === 'keySimilarity';
  const values = mayBeNegative ? infinite : [...infinite, -1];
  return spoil(tokens[need], values).map((array) => ({ ...tokens, [need]: array }));
}

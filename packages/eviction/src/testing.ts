/**
 * The conformance suite of KV policies: what every {@link KvPolicy} must do, whatever it scores.
 *
 * The suite depends on no test library: the caller hands in `describe`, `it` and `expect`, and
 * those of vitest and jest fit. Data is seeded, so that a failure repeats.
 */
import { isVramError } from '@vramkit/core';
import { seededRandom, type TestApi } from '@vramkit/core/testing';
import type { KvNeed, KvPolicy, KvTokens } from './policy.js';
import { evictableTokens } from './protection.js';
import { gatherTokens } from './tokens.js';

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

/** Sizes of {@link randomTokens}. */
export interface RandomTokensOptions {
  /** Tokens. */
  readonly tokenCount: number;
  /** Layers. Default: 2. */
  readonly layers?: number;
  /** KV heads of a layer. Default: 3. */
  readonly kvHeads?: number;
  /** Values of a key. Default: 4. */
  readonly headDim?: number;
  /** Seed; equal seeds give equal tokens. Default: 1. */
  readonly seed?: number;
}

/** Tokens at positions 0, 1, ... with every need filled from a seed. */
export function randomTokens(options: RandomTokensOptions): KvTokens {
  const { tokenCount, layers = 2, kvHeads = 3, headDim = 4, seed = 1 } = options;
  const random = seededRandom(seed);
  const rows = tokenCount * layers * kvHeads;
  const fill = (length: number, scale: number, shift: number): Float32Array =>
    Float32Array.from({ length }, () => random.uniform() * scale + shift);
  return {
    tokenCount,
    layers,
    kvHeads,
    positions: Uint32Array.from({ length: tokenCount }, (_, index) => index),
    keyNorm: fill(rows, 10, 0.1),
    valueNorm: fill(rows, 4, 0),
    keys: fill(rows * headDim, 2, -1),
    attention: fill(rows, 1, 0),
  };
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
export function describeKvPolicy(name: string, factory: KvPolicyFactory, api: TestApi): void {
  const suite = new Suite(api, factory);
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

  constructor(api: TestApi, factory: KvPolicyFactory) {
    this.#api = api;
    this.#make = factory;
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
  }

  registerBadInput(): void {
    this.#api.it(
      'refuses needed values that are absent, too few, NaN, infinite or negative',
      () => {
        const policy = this.#make(SIZES[0]);
        const tokens = randomTokens({ tokenCount: 40 });
        for (const need of policy.needs) {
          const array = tokens[need] ?? new Float32Array(0);
          const others = Object.entries(tokens).filter(([name]) => name !== need);
          // A foreign boundary: what JavaScript callers hand in, less one array.
          const without = Object.fromEntries(others) as unknown as KvTokens;
          this.#refused(policy, without, `no ${need}`);
          this.#refused(policy, { ...tokens, [need]: array.subarray(1) }, `short ${need}`);
          for (const value of badValues(need)) {
            const changed = { ...tokens, [need]: array.with(array.length - 1, value) };
            this.#refused(policy, changed, `${need} ${value}`);
          }
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
          for (let count = 0; count < size.budgetTokens + 3 * size.blockSize; count++) {
            const kept = policy.selectTokens(randomTokens({ tokenCount: count, seed: count }));
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
        const { start, end } = evictableTokens(policy.protect, tokens.tokenCount, size.blockSize);
        const candidates = [...scores.keys()].slice(start, end);
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
          const { start, end } = evictableTokens(policy.protect, tokenCount, size.blockSize);
          const guarded = [...tokens.positions].filter((token) => token < start || token >= end);
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
      'behaviour 42: one block per filled block over budget, which bounds the cache',
      () => {
        for (const size of SIZES) {
          const policy = this.#make(size);
          for (const tokenCount of [1, size.blockSize * 2 + 1, size.budgetTokens * 3 + 5]) {
            const tokens = randomTokens({ tokenCount, seed: 5 });
            const held = this.#decode(policy, tokens, size.budgetTokens * 3);
            const limit = policy.budgetTokens + size.blockSize - 1;
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
        const { start, end } = evictableTokens(policy.protect, cachedTokenCount, size.blockSize);
        for (let lowest = 0; lowest < count; lowest++) {
          const scores = Array.from({ length: count }, (_, block) =>
            block === lowest ? -1e9 : block,
          );
          const state = { tokenCount: 1e6, cachedTokenCount, blockFilled: true, scores };
          const first = (policy.selectVictim(state)?.victim ?? -1) * size.blockSize;
          this.#same('in range', first >= start && first + size.blockSize <= end, true);
        }
      }
    });

    this.#api.it('refuses block scores of wrong number or not finite', () => {
      const policy = this.#make(SIZES[0]);
      const state = { tokenCount: 99, cachedTokenCount: 16, blockFilled: true };
      for (const scores of [[], [1, 2, 3], [1, 2, 3, 4, 5], [1, NaN, 3, 4], [1, 2, -Infinity, 4]]) {
        this.#invalid(`scores ${scores.join()}`, () => policy.selectVictim({ ...state, scores }));
      }
    });
  }

  /**
   * Prefills `tokens` and appends `steps` more, the way a cache would; a block goes exactly where
   * an append has filled one and more than the budget is held. Returns the tokens held after each
   * step.
   */
  #decode(policy: KvPolicy, tokens: KvTokens, steps: number): number[] {
    const { blockSize } = policy;
    const all = randomTokens({ tokenCount: tokens.tokenCount + steps, seed: 77 });
    let held = [...policy.selectTokens(tokens)];
    let scores = [...policy.scoreBlocks(gatherTokens(all, held))];
    return Array.from({ length: steps }, (_, step) => {
      held.push(tokens.tokenCount + step);
      const blockFilled = held.length % blockSize === 0;
      if (blockFilled && policy.blockScore === 'when-filled') {
        scores.push(...policy.scoreBlocks(gatherTokens(all, held.slice(-blockSize))));
      } else if (blockFilled) {
        scores = [...policy.scoreBlocks(gatherTokens(all, held))];
      }
      const tokenCount = tokens.tokenCount + step + 1;
      const state = { tokenCount, cachedTokenCount: held.length, blockFilled, scores };
      const choice = policy.selectVictim(state);
      const mustGo = blockFilled && held.length > policy.budgetTokens;
      this.#same(`eviction with ${held.length} held`, choice !== undefined, mustGo);
      if (choice !== undefined) {
        const { victim, reason, score } = choice;
        this.#same('choice', { reason, score }, { reason: 'capacity', score: scores[victim] });
        held = held.toSpliced(victim * blockSize, blockSize);
        scores = scores.toSpliced(victim, 1);
      }
      return held.length;
    });
  }

  /** Expects deep equality; `what` shows in the failure. */
  #same(what: string, actual: unknown, expected: unknown): void {
    this.#api.expect({ [what]: actual }).toEqual({ [what]: expected });
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

function badValues(need: KvNeed): readonly number[] {
  return need === 'keys' ? [NaN, Infinity, -Infinity] : [NaN, Infinity, -Infinity, -1];
}

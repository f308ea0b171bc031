/** What counts as agreement with llama.cpp. */
import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import {
  commonTokens,
  compareContinuations,
  continuationsAgree,
  perplexitiesAgree,
  topTwo,
} from './parity-compare.js';

describe('perplexitiesAgree', () => {
  it('holds within one percent of theirs, on both sides', () => {
    expect(perplexitiesAgree(100.9, 100)).toBe(true);
    expect(perplexitiesAgree(99.1, 100)).toBe(true);
    expect(perplexitiesAgree(101.1, 100)).toBe(false);
    expect(perplexitiesAgree(98.9, 100)).toBe(false);
  });

  it('never holds where a side is no number', () => {
    expect(perplexitiesAgree(Number.NaN, 100)).toBe(false);
    expect(perplexitiesAgree(100, Number.NaN)).toBe(false);
    expect(perplexitiesAgree(Infinity, Infinity)).toBe(false);
  });
});

describe('compareContinuations', () => {
  const tokens = Array.from({ length: 20 }, (_, index) => index + 100);

  it('finds the first difference', () => {
    const other = tokens.with(17, 7);
    expect(compareContinuations(tokens, other)).toEqual({ common: 17, partsAt: 17, agrees: true });
    const early = tokens.with(commonTokens - 1, 7);
    expect(compareContinuations(tokens, early)).toEqual({ common: 15, partsAt: 15, agrees: false });
    expect(compareContinuations(tokens, tokens)).toEqual({
      common: 20,
      partsAt: undefined,
      agrees: true,
    });
  });

  it('counts a text that ends alike as agreement, and one that ends early as a parting', () => {
    const short = tokens.slice(0, 3);
    expect(compareContinuations(short, short).agrees).toBe(true);
    expect(compareContinuations(short, tokens)).toEqual({ common: 3, partsAt: 3, agrees: false });
    expect(compareContinuations(tokens, short)).toEqual({ common: 3, partsAt: 3, agrees: false });
    expect(compareContinuations([], []).agrees).toBe(false);
  });

  it('allows one prompt to part', () => {
    const agrees = { common: 32, partsAt: undefined, agrees: true };
    const parts = { common: 3, partsAt: 3, agrees: false };
    expect(continuationsAgree([agrees, agrees, parts, agrees])).toBe(true);
    expect(continuationsAgree([agrees, parts, parts, agrees])).toBe(false);
    expect(continuationsAgree([])).toBe(false);
  });
});

describe('topTwo', () => {
  it('gives the two largest logits as probabilities', () => {
    const [best, second] = topTwo(Float32Array.of(0, Math.log(3), Math.log(4), -Infinity));
    expect(best.token).toBe(2);
    expect(best.probability).toBeCloseTo(0.5, 6);
    expect(second.token).toBe(1);
    expect(second.probability).toBeCloseTo(0.375, 6);
  });

  it('agrees with sorting', () => {
    const logits = fc.uniqueArray(fc.integer({ min: -50, max: 50 }), { minLength: 2 });
    fc.assert(
      fc.property(logits, (values) => {
        const sorted = [...values.keys()].sort((a, b) => (values[b] ?? 0) - (values[a] ?? 0));
        const found = topTwo(Float32Array.from(values)).map((each) => each.token);
        expect(found).toEqual(sorted.slice(0, 2));
      }),
    );
  });

  it('needs two tokens', () => {
    expect(() => topTwo(Float32Array.of(1))).toThrow(RangeError);
  });
});

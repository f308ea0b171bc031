/** Reading and gathering token arrays. */
import { describe, expect, it } from 'vitest';
import { randomTokens } from './testing.js';
import { checkTokens, gatherTokens, statistic } from './tokens.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });

describe('gatherTokens', () => {
  it('takes the rows of every array that is there, in the order asked for', () => {
    const tokens = randomTokens({ tokenCount: 5, layers: 1, kvHeads: 2, headDim: 3 });
    const { keyNorm, ...given } = tokens;
    const taken = gatherTokens(given, [3, 1]);
    expect(taken.tokenCount).toBe(2);
    expect([...taken.positions]).toEqual([3, 1]);
    expect(taken.keyNorm).toBeUndefined();
    const value = tokens.valueNorm ?? [];
    expect([...(taken.valueNorm ?? [])]).toEqual([value[6], value[7], value[2], value[3]]);
    expect([...(taken.keys ?? [])].slice(0, 6)).toEqual([...(tokens.keys ?? [])].slice(18, 24));
    expect(taken.attention?.length).toBe(4);
    expect(keyNorm?.length).toBe(10);
  });

  it('takes nothing from nothing, and refuses tokens that are not there', () => {
    expect(gatherTokens(randomTokens({ tokenCount: 0 }), []).positions.length).toBe(0);
    expect(gatherTokens(randomTokens({ tokenCount: 4 }), []).keyNorm?.length).toBe(0);
    for (const index of [4, -1, 0.5, NaN]) {
      expect(() => gatherTokens(randomTokens({ tokenCount: 4 }), [index])).toThrow(
        error('invalid-argument'),
      );
    }
  });
});

describe('checkTokens and statistic', () => {
  it('refuses counts out of range', () => {
    const tokens = randomTokens({ tokenCount: 4 });
    for (const changes of [
      { tokenCount: -1 },
      { tokenCount: 5 },
      { layers: 0 },
      { kvHeads: 1.5 },
    ]) {
      expect(() => checkTokens({ ...tokens, ...changes })).toThrow(error('invalid-argument'));
    }
    checkTokens(tokens);
  });

  it('lets keys be negative, and refuses keys that are no whole rows', () => {
    const tokens = randomTokens({ tokenCount: 4, headDim: 2 });
    expect(statistic(tokens, 'keys').some((value) => value < 0)).toBe(true);
    for (const length of [0, 47]) {
      const keys = new Float32Array(length);
      expect(() => statistic({ ...tokens, keys }, 'keys')).toThrow(error('invalid-argument'));
    }
    const none = randomTokens({ tokenCount: 0 });
    expect(statistic(none, 'keys').length).toBe(0);
    expect(() => statistic({ ...none, keys: new Float32Array(3) }, 'keys')).toThrow(
      error('invalid-argument'),
    );
  });
});

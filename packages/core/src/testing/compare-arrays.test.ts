/** What passes, what fails, and what the failure says. */
import { describe, expect, it } from 'vitest';
import { compareArrays } from './compare-arrays.js';

describe('compareArrays', () => {
  it('allows absolute plus epsilon times magnitude, and measures how close it was', () => {
    const options = { absolute: 0.5, epsilon: 0.25 };
    expect(compareArrays([10, 4], [8, 4], options)).toEqual({
      maxError: 2,
      maxShareOfTolerance: 0.8,
    });
    expect(() => compareArrays([10.6], [8], options)).toThrow(/1 of 1 elements/);
    expect(compareArrays([1], [0], { epsilon: 0.1, magnitudes: [10] }).maxShareOfTolerance).toBe(1);
  });

  it('is exact by default, and takes both zeros for the same', () => {
    expect(compareArrays([0, 1], [-0, 1])).toEqual({ maxError: 0, maxShareOfTolerance: 0 });
    expect(() => compareArrays([1 + 2 ** -50], [1])).toThrow();
  });

  it('matches NaN and infinities only with themselves, whatever is allowed', () => {
    const lax = { absolute: 1e300 };
    compareArrays([NaN, Infinity, -Infinity], [NaN, Infinity, -Infinity]);
    for (const [actual, expected] of [
      [NaN, 1],
      [1, NaN],
      [Infinity, 1],
      [-Infinity, Infinity],
    ] as const) {
      expect(() => compareArrays([actual], [expected], lax)).toThrow(/off by Infinity/);
    }
  });

  it('names the worst and the first misses by their indices', () => {
    const expected = new Float32Array(24);
    const actual = Float32Array.from(expected, (_value, i) => (i === 17 ? 9 : i === 6 ? 1 : 0));
    const options = { absolute: 0.5, shape: [2, 3, 4], label: 'scores' };
    expect(() => compareArrays(actual, expected, options)).toThrow(
      [
        'scores: 2 of 24 elements differ too much',
        '  worst [1, 1, 1]: got 9, expected 0, off by 9.000e+0, allowed 5.000e-1',
        '  [0, 1, 2]: got 1, expected 0, off by 1.000e+0, allowed 5.000e-1',
      ].join('\n'),
    );
  });

  it('rejects lengths that differ and tolerances below zero', () => {
    expect(() => compareArrays([1], [1, 2])).toThrow(/lengths 1, 2 differ from 2/);
    expect(() => compareArrays([1], [1], { shape: [2] })).toThrow(/differ from 1/);
    expect(() => compareArrays([1], [1], { magnitudes: [] })).toThrow(/differ from 1/);
    expect(() => compareArrays([1], [1], { absolute: -1 })).toThrow(/tolerances/);
    expect(() => compareArrays([1], [1], { epsilon: NaN })).toThrow(/tolerances/);
  });
});

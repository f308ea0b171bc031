/** Element counts of shapes, and what is refused as one. */
import { expect, it } from 'vitest';
import { elementCount, type Shape } from './shape.js';

it.each([4, undefined, null, 'wide', [-1], [1.5], [NaN], [2 ** 40, 2 ** 40]])(
  '%j is no shape',
  (shape) => {
    expect(() => elementCount(shape as Shape)).toThrow(
      expect.objectContaining({ code: 'invalid-argument' }),
    );
  },
);

it('a scalar has one element, an empty dimension none', () => {
  expect([[], [2, 3], [5, 0]].map(elementCount)).toEqual([1, 6, 0]);
});

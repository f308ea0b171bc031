/** Sums by end hold exactly the last queries of each decision. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { windowSums } from './attention-windows.js';

it('every decision finds the last queries, no more and no fewer', () => {
  const chunks = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 50 }),
      fc.constantFrom(4, 8, 16),
      chunks,
      (queries, blockSize, prompt) => {
        const promptEnd = prompt.reduce((sum, count) => sum + count, 0);
        const seen = new Map<number, number[]>();
        const step = (start: number, count: number, isPrompt: boolean): void => {
          const span = { start, count, ...(isPrompt ? { promptEnd } : {}) };
          const sums = windowSums(queries, blockSize, span);
          expect(sums.length).toBeLessThanOrEqual(Math.ceil(queries / blockSize) + 1);
          for (const { end, firstQuery } of sums) {
            const list = seen.get(end) ?? [];
            for (let i = firstQuery; i < count; i++) list.push(start + i);
            seen.set(end, list);
          }
        };
        const check = (end: number): void => {
          const first = Math.max(0, end - queries);
          const expected = Array.from({ length: end - first }, (_, i) => first + i);
          expect(seen.get(end)).toEqual(expected);
        };
        let position = 0;
        for (const count of prompt) {
          step(position, count, true);
          position += count;
        }
        check(promptEnd);
        for (let i = 0; i < 3 * blockSize; i++) {
          step(position++, 1, false);
          if (position % blockSize === 0) check(position);
        }
      },
    ),
  );
});

it('all queries are one sum', () => {
  expect(windowSums(Infinity, 16, { start: 5, count: 9, promptEnd: 14 })).toEqual([
    { end: Infinity, firstQuery: 0 },
  ]);
});

it('rejects numbers that are no counts', () => {
  const invalid = expect.objectContaining({ code: 'invalid-argument' });
  expect(() => windowSums(0, 16, { start: 0, count: 1 })).toThrow(invalid);
  expect(() => windowSums(2.5, 16, { start: 0, count: 1 })).toThrow(invalid);
  expect(() => windowSums(1, 16, { start: -1, count: 1 })).toThrow(invalid);
  expect(() => windowSums(1, 16, { start: 0, count: 0 })).toThrow(invalid);
});

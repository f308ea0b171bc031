// The gradient that is kept up to date, beside the product that defines it.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { activationMoments } from './moments.js';
import { RowGradient } from './row-gradient.js';

const columns = 24;
const groupSize = 8;
const groups = columns / groupSize;

const numbers = (count: number, size: number) =>
  fc.array(fc.double({ min: -size, max: size, noNaN: true }), {
    minLength: count,
    maxLength: count,
  });

it('is the moments times the error after any steps, over any rows', () => {
  const step = fc.record({
    codes: fc.array(fc.nat(255), { minLength: columns, maxLength: columns }),
    // How many codes a step may change: none, some, all.
    most: fc.constantFrom(0, 3, columns),
    scales: numbers(groups, 1),
    minimums: numbers(groups, 1),
  });
  const row = fc.record({ weights: numbers(columns, 2), steps: fc.array(step, { maxLength: 5 }) });
  const samples = numbers(3 * columns, 1).map((values) => Float32Array.from(values));
  const check = fc.property(samples, fc.array(row, { maxLength: 3 }), (activations, rows) => {
    const moments = activationMoments(activations, columns);
    const gradient = new RowGradient(moments, columns, groupSize);
    for (const { weights, steps } of rows) {
      gradient.start(Float32Array.from(weights));
      const codes = new Uint8Array(columns);
      for (const { codes: next, most, scales, minimums } of steps) {
        codes.set(next.slice(0, most));
        gradient.update(codes, Float64Array.from(scales), Float64Array.from(minimums));
        for (let i = 0; i < columns; i++) {
          let sum = 0;
          for (let j = 0; j < columns; j++) {
            const group = Math.floor(j / groupSize);
            const stored = (scales[group] ?? 0) * (codes[j] ?? 0) + (minimums[group] ?? 0);
            sum += (moments[i * columns + j] ?? 0) * (stored - Math.fround(weights[j] ?? 0));
          }
          expect(Math.abs((gradient.values[i] ?? NaN) - sum)).toBeLessThan(1e-9);
        }
      }
    }
  });
  fc.assert(check, { numRuns: 50 });
});

it('refuses moments and groups of other columns', () => {
  const invalid = expect.objectContaining({ code: 'invalid-argument' });
  expect(() => new RowGradient(new Float64Array(9), 4, 2)).toThrow(invalid);
  expect(() => new RowGradient(new Float64Array(16), 4, 3)).toThrow(invalid);
});

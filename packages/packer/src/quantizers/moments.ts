/**
 * Second moments of activations: what a linear layer's output error depends on.
 *
 * With H = mean over samples of x x^T, the mean squared change of an output whose weights change by
 * d is d^T H d. One matrix of columns by columns stands for any number of samples. These should be
 * more than the columns, and come from windows as long as those that the model will read: its first
 * tokens, which all others attend to, count by their share (see ADR 0097).
 */
import { assertArgument } from '@vramkit/core';

/**
 * Mean of x x^T over samples, [columns, columns], in f64.
 * @param activations Finite, [samples, columns].
 * @throws VramError `invalid-argument` for a part of a sample, none, or a value that is not finite.
 */
export function activationMoments(
  activations: Float32Array,
  columns: number,
): Float64Array<ArrayBuffer> {
  const samples = activations.length / columns;
  assertArgument(
    Number.isInteger(samples) && samples > 0,
    `${activations.length} activations are not samples of ${columns}`,
    { elements: activations.length, columns },
  );
  const bad = activations.findIndex((value) => !Number.isFinite(value));
  assertArgument(bad < 0, `activation ${bad} is ${activations[bad]}`, { index: bad });
  const moments = new Float64Array(columns * columns);
  // Four samples at a time, so that moments move less; what is missing of the last four is 0.
  const four = new Float64Array(4 * columns);
  for (let start = 0; start < samples; start += 4) {
    const x = activations.subarray(start * columns, (start + 4) * columns);
    four.fill(0);
    four.set(x);
    addFour(four, columns, samples, moments);
  }
  for (let i = 0; i < columns; i++) {
    for (let j = 0; j < i; j++) moments[j * columns + i] = moments[i * columns + j] ?? 0;
  }
  return moments;
}

/** Adds x x^T / samples of four samples [4, columns], on and below the diagonal. */
function addFour(x: Float64Array, columns: number, samples: number, moments: Float64Array): void {
  const [second, third, fourth] = [columns, 2 * columns, 3 * columns];
  for (let i = 0; i < columns; i++) {
    const a = (x[i] ?? 0) / samples;
    const b = (x[second + i] ?? 0) / samples;
    const c = (x[third + i] ?? 0) / samples;
    const d = (x[fourth + i] ?? 0) / samples;
    const row = i * columns;
    for (let j = 0; j <= i; j++) {
      moments[row + j] =
        (moments[row + j] ?? 0) +
        a * (x[j] ?? 0) +
        b * (x[second + j] ?? 0) +
        c * (x[third + j] ?? 0) +
        d * (x[fourth + j] ?? 0);
    }
  }
}

/** Mean squared change of the outputs, summed over rows, where row r changes by `difference[r]`. */
export function outputErrorOf(
  difference: Float64Array,
  moments: Float64Array,
  columns: number,
): number {
  let sum = 0;
  for (let start = 0; start < difference.length; start += columns) {
    for (let i = 0; i < columns; i++) {
      const di = difference[start + i] ?? 0;
      if (di === 0) continue;
      // Moments are symmetric: the half below the diagonal counts twice.
      let inner = 0;
      for (let j = 0; j < i; j++) {
        inner += (moments[i * columns + j] ?? 0) * (difference[start + j] ?? 0);
      }
      sum += di * (2 * inner + (moments[i * columns + i] ?? 0) * di);
    }
  }
  return sum;
}

/** The moments' diagonal: the mean square of each column, [columns]. */
export function columnPower(moments: Float64Array, columns: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: columns }, (_, i) => moments[i * columns + i] ?? 0);
}

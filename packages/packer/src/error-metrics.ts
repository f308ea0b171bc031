/**
 * How far stored weights are from the ones they stand for: always from the stored words, never from
 * numbers before rounding.
 */
import { assertArgument } from '@vramkit/core';
import { matrixValues, type HostMatrix } from './kernels/host-matrix.js';

/** Errors of a packed matrix; plain data. */
export interface ErrorMetrics {
  /** Mean squared error. */
  readonly mse: number;
  /** Mean squared error weighted by importance; `mse` where all columns are alike. */
  readonly weightedMse: number;
  /** Frobenius norm of the error over that of the weights; 0 for a zero matrix kept exactly. */
  readonly relativeError: number;
  /** Cosine of the angle between stored and true weights. */
  readonly cosine: number;
  /** Largest absolute error. */
  readonly maxError: number;
  /** Signal to quantization noise ratio, in dB; `Infinity` without error. */
  readonly sqnrDb: number;
}

/**
 * Compares a packed matrix with its weights, [rows, columns].
 * @throws VramError `invalid-argument` where they differ in size.
 */
export function errorMetrics(
  matrix: HostMatrix,
  weights: Float32Array,
  importance?: Float32Array,
): ErrorMetrics {
  const stored = matrixValues(matrix);
  const { columns } = matrix.layout;
  assertArgument(stored.length === weights.length, `${weights.length} weights for a matrix`, {
    weights: weights.length,
    stored: stored.length,
  });
  return compareWeights(stored, weights, { columns, importance });
}

/** The errors of `stored` weights however they were stored; both [rows, columns]. */
export function compareWeights(
  stored: Float32Array,
  weights: Float32Array,
  options: { readonly columns: number; readonly importance?: Float32Array | undefined },
): ErrorMetrics {
  const { columns, importance } = options;
  let [error, weighted, weight, signal, power, product, maxError] = [0, 0, 0, 0, 0, 0, 0];
  for (let i = 0; i < weights.length; i++) {
    const value = weights[i] ?? 0;
    const kept = stored[i] ?? 0;
    const difference = kept - value;
    const factor = importance?.[i % columns] ?? 1;
    error += difference * difference;
    weighted += factor * difference * difference;
    weight += factor;
    signal += value * value;
    power += kept * kept;
    product += value * kept;
    maxError = Math.max(maxError, Math.abs(difference));
  }
  const both = Math.sqrt(signal * power);
  return {
    mse: error / weights.length,
    weightedMse: weight === 0 ? 0 : weighted / weight,
    relativeError: error === 0 ? 0 : Math.sqrt(error / signal),
    cosine: both === 0 ? (signal === power ? 1 : 0) : product / both,
    maxError,
    sqnrDb: error === 0 ? Infinity : 10 * Math.log10(signal / error),
  };
}

/** How far two models' predictions are apart; plain data. */
export interface LogitMetrics {
  /** Mean over rows of the Kullback-Leibler divergence from the true model, in nats. */
  readonly meanKl: number;
  /** Largest of the rows. */
  readonly maxKl: number;
  /** Share of rows whose likeliest token is the same. */
  readonly sameTop: number;
}

/**
 * Compares logits of a packed model with those of the true one; both [rows, vocabulary].
 * @throws VramError `invalid-argument` where they differ in size, are not whole rows, or are not
 * finite.
 */
export function compareLogits(
  logits: Float32Array,
  truth: Float32Array,
  vocabulary: number,
): LogitMetrics {
  const rows = truth.length / vocabulary;
  assertArgument(
    logits.length === truth.length && rows > 0 && Number.isInteger(rows),
    `${logits.length} and ${truth.length} logits are not rows of ${vocabulary}`,
    { logits: logits.length, truth: truth.length, vocabulary },
  );
  let [sum, maxKl, same] = [0, 0, 0];
  for (let row = 0; row < rows; row++) {
    const p = logProbabilities(truth, row * vocabulary, vocabulary);
    const q = logProbabilities(logits, row * vocabulary, vocabulary);
    let kl = 0;
    p.values.forEach((value, i) => (kl += Math.exp(value) * (value - (q.values[i] ?? 0))));
    assertArgument(Number.isFinite(kl), `row ${row} of the logits is not finite`, { row });
    // Rounding can leave equal rows a hair below 0.
    sum += Math.max(0, kl);
    maxKl = Math.max(maxKl, kl);
    if (p.top === q.top) same += 1;
  }
  return { meanKl: sum / rows, maxKl, sameTop: same / rows };
}

/** Logarithms of a row's softmax, in f64, and its first largest element. */
function logProbabilities(
  logits: Float32Array,
  start: number,
  count: number,
): { readonly values: Float64Array; readonly top: number } {
  const values = Float64Array.from(logits.subarray(start, start + count));
  const most = values.reduce((largest, value) => Math.max(largest, value), -Infinity);
  const logSum = most + Math.log(values.reduce((sum, value) => sum + Math.exp(value - most), 0));
  return { top: values.indexOf(most), values: values.map((value) => value - logSum) };
}

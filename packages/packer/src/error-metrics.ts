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

/**
 * From queries that were seen to the queries that are expected: the statistics of ExpectedAttention
 * that depend on how a model rotates.
 *
 * Queries before their rotation look alike at all positions, so their mean and covariance over a
 * prompt stand for those to come. Cached keys are rotated, so the statistics are rotated too, by
 * the mean of the rotations of the next positions. For a pair of channels that turns by frequency f
 * per position, the mean over positions p is
 *
 * ```
 *   | mean cos(p f)  -mean sin(p f) |
 *   | mean sin(p f)   mean cos(p f) |        a rotation and a shrinking: far ahead nothing is known
 * ```
 *
 * Source: as expected-attention.ts.
 */
import { assertArgument, checkInteger } from '@vramkit/core';
import type { KvQueries } from '../needs.js';

/** The mean of rotations. */
export interface AverageRotation {
  /** Mean cosine of each pair of channels, shape `[pairs]`. */
  readonly cosine: Float64Array;
  /** Mean sine of each pair of channels, shape `[pairs]`. */
  readonly sine: Float64Array;
}

/** Positions `start` to `start + count - 1`. */
export interface PositionSpan {
  readonly start: number;
  /** At least 1. */
  readonly count: number;
}

/**
 * The mean of the rotations of the positions of a span.
 * @param frequencies Radians per position of each pair of channels, scaling of the context
 *   included.
 * @throws VramError `invalid-argument` where the span is empty.
 */
export function averageRotation(
  frequencies: ArrayLike<number>,
  { start, count }: PositionSpan,
): AverageRotation {
  checkInteger('start', start);
  checkInteger('count', count, 1);
  const mean = (of: (angle: number) => number): Float64Array =>
    Float64Array.from({ length: frequencies.length }, (_, pair) => {
      let sum = 0;
      for (let i = 0; i < count; i++) sum += of((start + i) * (frequencies[pair] ?? 0));
      return sum / count;
    });
  return { cosine: mean(Math.cos), sine: mean(Math.sin) };
}

/**
 * Rotates the mean and the covariance of queries.
 * @param queries As they were before their rotation.
 * @param style Which channels are a pair: `half` for i and i + pairs, `interleaved` for 2 i and
 *   2 i + 1. Channels behind the pairs are not rotated.
 * @throws VramError `invalid-argument` where the arrays and the pairs do not fit each other.
 */
export function rotateQueries(
  queries: KvQueries,
  { cosine, sine }: AverageRotation,
  style: 'half' | 'interleaved',
): KvQueries {
  const { heads, mean, covariance } = queries;
  const pairs = cosine.length;
  const headDim = Math.round(covariance.length / Math.max(1, mean.length));
  assertArgument(
    headDim * mean.length === covariance.length && 2 * pairs <= headDim,
    `${pairs} pairs, ${mean.length} means, ${covariance.length} covariances do not fit`,
    { pairs, means: mean.length, covariances: covariance.length },
  );
  /** Rotates the vector of `headDim` values at `from`, `stride` apart, in place. */
  const rotate = (values: Float64Array, from: number, stride: number): void => {
    for (let pair = 0; pair < pairs; pair++) {
      const a = from + stride * (style === 'half' ? pair : 2 * pair);
      const b = a + stride * (style === 'half' ? pairs : 1);
      const [x, y] = [values[a] ?? NaN, values[b] ?? NaN];
      const [c, s] = [cosine[pair] ?? NaN, sine[pair] ?? NaN];
      values[a] = c * x - s * y;
      values[b] = s * x + c * y;
    }
  };
  const means = Float64Array.from(mean);
  const covariances = Float64Array.from(covariance);
  for (let row = 0; row * headDim < means.length; row++) {
    rotate(means, row * headDim, 1);
    const from = row * headDim * headDim;
    // R C Rᵀ: every column of C, then every row of the result.
    for (let i = 0; i < headDim; i++) rotate(covariances, from + i, headDim);
    for (let i = 0; i < headDim; i++) rotate(covariances, from + i * headDim, 1);
  }
  return { heads, mean: Float32Array.from(means), covariance: Float32Array.from(covariances) };
}

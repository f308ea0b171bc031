/**
 * What two models' next-token logits say about each other and about the true text. Pure; f64.
 */

/** Log-probabilities of one row of logits. */
export function logSoftmax(logits: Float32Array): Float64Array {
  let most = -Infinity;
  for (const logit of logits) most = Math.max(most, logit);
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - most);
  const total = most + Math.log(sum);
  return Float64Array.from(logits, (logit) => logit - total);
}

/** Index of the largest; of equal ones the first. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if ((values[i] ?? 0) > (values[best] ?? 0)) best = i;
  return best;
}

/** Kullback-Leibler divergence of `other` from `reference`, both log-probabilities, nats. */
export function divergence(reference: Float64Array, other: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < reference.length; i++) {
    const log = reference[i] ?? 0;
    sum += Math.exp(log) * (log - (other[i] ?? 0));
  }
  // Rounding can leave a sum of almost nothing below zero.
  return Math.max(0, sum);
}

/** Arithmetic mean; NaN of nothing. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Standard deviation of a sample; 0 of a single value. */
export function deviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const middle = mean(values);
  return Math.sqrt(
    values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1),
  );
}

/** Softmax in float64 that no logit overflows. */

/** Adds `scale` times the softmax of `logits` to `sums`. */
export function addSoftmax(sums: Float64Array, logits: Float64Array, scale: number): void {
  const highest = logits.reduce((most, logit) => Math.max(most, logit), -Infinity);
  const powers = logits.map((logit) => Math.exp(logit - highest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  powers.forEach((power, index) => {
    sums[index] = (sums[index] ?? NaN) + (scale * power) / total;
  });
}

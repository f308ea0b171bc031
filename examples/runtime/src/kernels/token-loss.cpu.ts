/** Definition of the token loss kernel. */

/** -log softmax(logits)[target] for each row, nats. */
export function tokenLoss(
  logits: Float32Array,
  targets: Uint32Array,
  columns: number,
): Float32Array {
  return Float32Array.from(targets, (target, row) => {
    const values = logits.subarray(row * columns, (row + 1) * columns);
    const largest = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
    const sum = values.reduce((total, value) => total + Math.exp(value - largest), 0);
    return largest + Math.log(sum) - (values[target] ?? 0);
  });
}

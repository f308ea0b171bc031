/** Definition of the argmax kernel. */

/** Index of the largest of `logits` in each of `rows` rows; the lowest index wins a tie. */
export function argmax(logits: Float32Array, rows: number, columns: number): Uint32Array {
  return Uint32Array.from({ length: rows }, (_, row) => {
    const values = logits.subarray(row * columns, (row + 1) * columns);
    return values.reduce((best, value, i) => (value > (values[best] ?? 0) ? i : best), 0);
  });
}

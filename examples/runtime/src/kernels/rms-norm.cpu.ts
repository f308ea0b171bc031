/** Definition of the RMS norm kernel: the same signature, sums in f64. */

/** Normalises `rows` rows of `x` [firstRow + rows, columns]; gives [rows, columns]. */
export function rmsNorm(
  x: Float32Array,
  weight: Float32Array,
  shape: { readonly rows: number; readonly columns: number; readonly firstRow: number },
  epsilon: number,
): Float32Array {
  const { rows, columns, firstRow } = shape;
  const y = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const values = x.subarray((row + firstRow) * columns, (row + firstRow + 1) * columns);
    const meanSquare = values.reduce((sum, value) => sum + value * value, 0) / columns;
    const factor = 1 / Math.sqrt(meanSquare + epsilon);
    values.forEach((value, i) => (y[row * columns + i] = value * factor * (weight[i] ?? 0)));
  }
  return y;
}

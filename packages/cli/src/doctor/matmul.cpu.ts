/** What the kernel `doctor-matmul` computes, in f64: its definition. */

/**
 * `a * b` for square row-major matrices.
 * @param a **shape** `[size, size]`
 * @param b **shape** `[size, size]`
 */
export function matmulCpu(a: Float32Array, b: Float32Array, size: number): Float64Array {
  const c = new Float64Array(size * size);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      let sum = 0;
      for (let k = 0; k < size; k++) {
        sum += (a[row * size + k] ?? 0) * (b[k * size + column] ?? 0);
      }
      c[row * size + column] = sum;
    }
  }
  return c;
}

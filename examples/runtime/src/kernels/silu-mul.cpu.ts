/** Definition of the gated activation kernel. */

/** silu(gate) * up of `gateUp` [rows, 2 * width]; gives [rows, width]. */
export function siluMul(gateUp: Float32Array, rows: number, width: number): Float32Array {
  const y = new Float32Array(rows * width);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < width; i++) {
      const gate = gateUp[row * 2 * width + i] ?? 0;
      const up = gateUp[row * 2 * width + width + i] ?? 0;
      y[row * width + i] = (gate / (1 + Math.exp(-gate))) * up;
    }
  }
  return y;
}

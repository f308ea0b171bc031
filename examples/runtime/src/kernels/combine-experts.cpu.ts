/** Definition of the expert combination kernel. */

/** Adds sum over ranks of weights * outputs [tokens, chosen, width] to `residual` in place. */
export function combineExperts(
  residual: Float32Array,
  outputs: Float32Array,
  weights: Float32Array,
  shape: { readonly tokens: number; readonly chosen: number; readonly width: number },
): void {
  const { tokens, chosen, width } = shape;
  for (let token = 0; token < tokens; token++) {
    for (let i = 0; i < width; i++) {
      let sum = residual[token * width + i] ?? 0;
      for (let rank = 0; rank < chosen; rank++) {
        const row = token * chosen + rank;
        sum += (weights[row] ?? 0) * (outputs[row * width + i] ?? 0);
      }
      residual[token * width + i] = sum;
    }
  }
}

/** Definition of keep-sums: the sums of the tokens that stay, in their new order. */
import { at } from './host-kv.cpu.js';

/** Gives `[layers, targetTokens, width]` of `[layers, sourceTokens, width]`. */
export function keepSums(
  source: Float32Array,
  kept: ArrayLike<number>,
  shape: {
    readonly layers: number;
    readonly sourceTokens: number;
    readonly targetTokens: number;
    readonly width: number;
  },
): Float32Array {
  const { layers, sourceTokens, targetTokens, width } = shape;
  const target = new Float32Array(layers * targetTokens * width);
  for (let layer = 0; layer < layers; layer++) {
    for (let token = 0; token < kept.length; token++) {
      const from = (layer * sourceTokens + at(kept, token)) * width;
      const values = source.subarray(from, from + width);
      target.set(values, (layer * targetTokens + token) * width);
    }
  }
  return target;
}

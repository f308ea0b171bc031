/** Definition of key-direction and key-similarity: cosines with the sum of unit keys; in f64. */
import { keyElement } from '../kv-layout.js';
import { at, layerOf, type HostKv } from './host-kv.cpu.js';

/** Gives `[slots, kvHeads]` of one layer. */
export function keySimilarity(kv: HostKv, layer: number, slots: ArrayLike<number>): Float32Array {
  const { kvHeads, headDim } = kv.layout;
  const storage = layerOf(kv, layer);
  const result = new Float32Array(slots.length * kvHeads);
  for (let head = 0; head < kvHeads; head++) {
    const keys = Array.from(slots, (slot) =>
      Float64Array.from({ length: headDim }, (_, d) =>
        at(storage, keyElement(kv.layout, slot, head, d)),
      ),
    );
    const direction = new Float64Array(headDim);
    for (const key of keys) {
      const length = Math.hypot(...key);
      if (length > 0) key.forEach((k, d) => (direction[d] = at(direction, d) + k / length));
    }
    keys.forEach((key, token) => {
      const lengths = Math.hypot(...key) * Math.hypot(...direction);
      const product = key.reduce((sum, k, d) => sum + k * at(direction, d), 0);
      result[token * kvHeads + head] = lengths === 0 ? 0 : product / lengths;
    });
  }
  return result;
}

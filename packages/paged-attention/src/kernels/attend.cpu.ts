/**
 * Attention of one query head over any list of slots, in f64: what all attention kernels compute.
 */
import { keyElement, valueElement } from '../kv-layout.js';
import { at, layerOf, type HostKv } from './host-kv.cpu.js';

/** One query of one head. */
export interface HostQuery {
  readonly layer: number;
  readonly kvHead: number;
  /** `[headDim]`. */
  readonly query: ArrayLike<number>;
  readonly scale: number;
}

/** softmax(scale * query . keys) over `slots`: one weight per slot. */
export function attentionWeights(
  kv: HostKv,
  slots: ArrayLike<number>,
  request: HostQuery,
): number[] {
  const { layout } = kv;
  const storage = layerOf(kv, request.layer);
  const { kvHead, query, scale } = request;
  const logits = Array.from(slots, (slot) => {
    let sum = 0;
    for (let d = 0; d < layout.headDim; d++) {
      sum += at(query, d) * at(storage, keyElement(layout, slot, kvHead, d));
    }
    return sum * scale;
  });
  const top = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const weights = logits.map((logit) => Math.exp(logit - top));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / total);
}

/** The weighted sum of values over `slots`; zeros where there are none. Gives `[headDim]`. */
export function attend(kv: HostKv, slots: ArrayLike<number>, request: HostQuery): Float64Array {
  const { layout } = kv;
  const storage = layerOf(kv, request.layer);
  const result = new Float64Array(layout.headDim);
  attentionWeights(kv, slots, request).forEach((weight, index) => {
    for (let d = 0; d < layout.headDim; d++) {
      const value = at(storage, valueElement(layout, at(slots, index), request.kvHead, d));
      result[d] = at(result, d) + weight * value;
    }
  });
  return result;
}

/** The first `length` slots of a block table, in logical order. */
export function slotsOf(table: ArrayLike<number>, length: number, blockSize: number): number[] {
  return Array.from({ length }, (_, position) => {
    const block = at(table, Math.floor(position / blockSize));
    return block * blockSize + (position % blockSize);
  });
}

/**
 * A KV cache in host memory, element for element as on the device but in one piece: what the twins
 * of the kernels read and write. K and V are held as the numbers that the device stores, so f16
 * values are rounded when they are written.
 */
import { f16ToF32, f32ToF16 } from '@vramkit/core';
import { layerBlockElements, tokenNorms, type KvDType, type KvLayout } from '../kv-layout.js';

/** K, V and norms of all layers. */
export interface HostKv {
  readonly layout: KvLayout;
  /** Per layer `[blockCount, 2 * kvHeads * blockSize * headDim]`. */
  readonly layers: readonly Float32Array[];
  /** `[blockCount * blockSize, layers, kvHeads, 2]`. */
  readonly norms: Float32Array;
}

/** A cache of zeros. */
export function createHostKv(layout: KvLayout): HostKv {
  const { layers, blockCount, blockSize } = layout;
  const elements = blockCount * layerBlockElements(layout);
  return {
    layout,
    layers: Array.from({ length: layers }, () => new Float32Array(elements)),
    norms: new Float32Array(blockCount * blockSize * tokenNorms(layout)),
  };
}

/** The number that the device holds after `value` was stored. */
export function stored(dtype: KvDType, value: number): number {
  return dtype === 'f16' ? f16ToF32(f32ToF16(value)) : Math.fround(value);
}

/** An element whose index the caller has bounds-checked. */
export function at(array: ArrayLike<number>, index: number): number {
  // A typed-array boundary: the bounds are the caller's, the type cannot say so.
  return array[index] as number;
}

/** Storage of a layer that the caller has bounds-checked. */
export function layerOf(kv: HostKv, layer: number): Float32Array {
  // The caller has checked the index, which the type cannot say.
  return kv.layers[layer] as Float32Array;
}

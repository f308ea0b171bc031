/**
 * WGSL that every kernel over K and V shares: the shape as constants, and where a vector of four
 * elements is. The layout itself is described in kv-layout.ts.
 */
import { wgslPack4, wgslStorage4, wgslUnpack4 } from '@vramkit/core';
import type { KvShape } from '../kv-layout.js';

/** Store type of K and V: vectors of four elements. */
export function kvBindingType(params: { readonly shape: KvShape }): string {
  return `array<${wgslStorage4(params.shape.dtype)}>`;
}

/**
 * Constants, and `key_at`, `value_at`: index of the first vector of a token's key or value in a
 * layer's segment, `block` counted within the segment. The next vector of a key is BLOCK_SIZE
 * further, that of a value 1 further.
 */
export function wgslKvShape(shape: KvShape): string {
  const { kvHeads, headDim, blockSize, dtype } = shape;
  return /* wgsl */ `
const KV_HEADS = ${kvHeads}u;
const HEAD_VECTORS = ${headDim / 4}u;
const BLOCK_SIZE = ${blockSize}u;
const BLOCK_VECTORS = ${(2 * kvHeads * blockSize * headDim) / 4}u;
${wgslUnpack4('widen', dtype)}
fn key_at(block: u32, head: u32, offset: u32) -> u32 {
  return block * BLOCK_VECTORS + head * (HEAD_VECTORS * BLOCK_SIZE) + offset;
}
fn value_at(block: u32, head: u32, offset: u32) -> u32 {
  return block * BLOCK_VECTORS + ((KV_HEADS + head) * BLOCK_SIZE + offset) * HEAD_VECTORS;
}
`;
}

/** {@link wgslKvShape} for kernels that also store: adds `narrow`. */
export function wgslWritableKvShape(shape: KvShape): string {
  return wgslKvShape(shape) + wgslPack4('narrow', shape.dtype);
}

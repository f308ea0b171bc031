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

/**
 * `squares` of four elements, to be added up over a vector, and `norm_of` such a sum: the L2 norm
 * of any vector of normal numbers. A square leaves f32 beyond 1e19 and below 1e-19, so that there
 * are three sums: of the elements times 2^80, as they are, and times 2^-80 (Blue, 1978).
 */
export const wgslNorm = /* wgsl */ `
fn squares(x: vec4<f32>) -> vec3<f32> {
  let up = x * 0x1p80;
  let down = x * 0x1p-80;
  return vec3<f32>(dot(up, up), dot(x, x), dot(down, down));
}
fn norm_of(sums: vec3<f32>) -> f32 {
  if (sums.z > 0x1p-60) { return sqrt(sums.z) * 0x1p80; }
  return select(sqrt(sums.y), sqrt(sums.x) * 0x1p-80, sums.y < 0x1p-60);
}
`;

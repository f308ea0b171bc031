/**
 * Pieces of WGSL that every kernel shares: linear workgroup index and loads and stores by element
 * type.
 *
 * Floats of 16 bits are two to a `u32` in memory. Loads widen to f32, stores round to nearest even,
 * so a kernel is one text for all float types and needs no optional feature.
 */
import { VramError } from './errors.js';

/** Float element types that kernels read and write through this module. */
export type FloatDType = 'f32' | 'f16' | 'bf16';

/** `linear_workgroup(workgroup_id, num_workgroups)`: undoes the fold of the grid. */
export const wgslLinearWorkgroup = /* wgsl */ `
fn linear_workgroup(id: vec3<u32>, count: vec3<u32>) -> u32 {
  return id.x + id.y * count.x;
}
`;

/** WGSL type of four consecutive elements in storage. */
export function wgslStorage4(dtype: FloatDType): string {
  return dtype === 'f32' ? 'vec4<f32>' : 'vec2<u32>';
}

/**
 * A function `name(raw) -> vec4<f32>` that widens what {@link wgslStorage4} stores.
 */
export function wgslUnpack4(name: string, dtype: FloatDType): string {
  const parameter = `raw: ${wgslStorage4(dtype)}`;
  const body: Record<FloatDType, string> = {
    f32: 'return raw;',
    f16: 'return vec4<f32>(unpack2x16float(raw.x), unpack2x16float(raw.y));',
    bf16: `return bitcast<vec4<f32>>(vec4<u32>(
    raw.x << 16u, raw.x & 0xffff0000u, raw.y << 16u, raw.y & 0xffff0000u));`,
  };
  return `fn ${name}(${parameter}) -> vec4<f32> {\n  ${body[dtype]}\n}\n`;
}

/**
 * A function `name(value: vec4<f32>)` that narrows to what {@link wgslStorage4} stores.
 * @throws VramError `unsupported` for bf16, which vramkit stores from the host only.
 */
export function wgslPack4(name: string, dtype: FloatDType): string {
  if (dtype === 'bf16') {
    throw new VramError('unsupported', 'kernels do not store bf16; use f16 or f32');
  }
  const body =
    dtype === 'f32'
      ? 'return value;'
      : 'return vec2<u32>(pack2x16float(value.xy), pack2x16float(value.zw));';
  return `fn ${name}(value: vec4<f32>) -> ${wgslStorage4(dtype)} {\n  ${body}\n}\n`;
}

/**
 * Rounding f32 to 16 bits in WGSL, to nearest with ties to even, by integer operations: WebGPU
 * leaves the rounding of `pack2x16float` to the driver, and results here must not depend on it.
 * Same bits as `f32ToBf16` and `f32ToF16` of core, and as the WebAssembly kernels.
 */
import type { StateDType } from '../schedule.js';

const HALF: Readonly<Record<'f16' | 'bf16', string>> = {
  bf16: /* wgsl */ `
fn narrow(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return 0x7fc0u; }
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}
fn widen(bits: u32) -> f32 { return bitcast<f32>(bits << 16u); }
`,
  f16: /* wgsl */ `
fn narrow(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { return sign | 0x7e00u; }
  if (magnitude >= 0x477ff000u) { return sign | 0x7c00u; }
  if (magnitude < 0x38800000u) {
    return sign | (bitcast<u32>(bitcast<f32>(magnitude) + 0.5) - 0x3f000000u);
  }
  return sign | ((magnitude + 0xfffu + ((magnitude >> 13u) & 1u) - 0x38000000u) >> 13u);
}
fn widen(bits: u32) -> f32 { return unpack2x16float(bits).x; }
`,
};

/** WGSL type of four elements in storage. */
export function quadType(dtype: StateDType): string {
  return dtype === 'f32' ? 'vec4<f32>' : 'vec2<u32>';
}

/** `narrow4(vec4<f32>)` to what {@link quadType} stores, and `widen4` back. */
export function wgslNarrow4(dtype: StateDType): string {
  if (dtype === 'f32') {
    return /* wgsl */ `
fn narrow4(x: vec4<f32>) -> vec4<f32> { return x; }
fn widen4(x: vec4<f32>) -> vec4<f32> { return x; }
`;
  }
  return /* wgsl */ `${HALF[dtype]}
fn narrow4(x: vec4<f32>) -> vec2<u32> {
  return vec2<u32>(narrow(x.x) | (narrow(x.y) << 16u), narrow(x.z) | (narrow(x.w) << 16u));
}
fn widen4(x: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(
    widen(x.x & 0xffffu), widen(x.x >> 16u), widen(x.y & 0xffffu), widen(x.y >> 16u));
}
`;
}

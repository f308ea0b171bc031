/**
 * Converts a tensor between float element types on the device.
 *
 * Shapes: `source` [count] of `from`, `result` [count] of `to`. One invocation converts two
 * elements, because two 16-bit floats share a word; the grid covers ceil(count / 256) workgroups of
 * 64. Rounding to f16 is the driver's `pack2x16float` (nearest; values out of range are undefined
 * there).
 */
import { defineKernel } from './kernel.js';
import { wgslLinearWorkgroup, type FloatDType } from './wgsl.js';

/** Element types that can be converted. */
export type CastDType = FloatDType;

const storage = (dtype: CastDType): string => (dtype === 'f32' ? 'array<f32>' : 'array<u32>');

const LOAD: Readonly<Record<CastDType, string>> = {
  f32: 'vec2<f32>(source[2u * i], select(0.0, source[2u * i + 1u], 2u * i + 1u < uniforms.count))',
  f16: 'unpack2x16float(source[i])',
  bf16: 'bitcast<vec2<f32>>(vec2<u32>(source[i] << 16u, source[i] & 0xffff0000u))',
};

/** The conversion kernel; see the head of this file. */
export const castKernel = defineKernel({
  name: 'cast',
  bindings: {
    source: { access: 'read', type: (params: { from: CastDType }) => storage(params.from) },
    result: { access: 'read-write', type: (params: { to: CastDType }) => storage(params.to) },
  },
  uniforms: { count: 'u32' },
  source: (params: { readonly from: CastDType; readonly to: CastDType }) => /* wgsl */ `
${wgslLinearWorkgroup}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
  let first = (linear_workgroup(id, groups) * 64u + local) * 2u;
  for (var step = 0u; step < 2u; step++) {
    let i = first + step;
    if (2u * i >= uniforms.count) { return; }
    let value = ${LOAD[params.from]};
    ${
      params.to === 'f32'
        ? `result[2u * i] = value.x;
    if (2u * i + 1u < uniforms.count) { result[2u * i + 1u] = value.y; }`
        : 'result[i] = pack2x16float(value);'
    }
  }
}
`,
});

/**
 * What happens to gradients on the device, before an update.
 *
 * `flush-gradient` rounds f32 `source` [count] to the flush type, for the way down. `keep-gradient`
 * rounds the same way, widens again and adds to `kept` [count] f32 (or replaces it where `keep` is
 * 0), so that a gradient is the same number wherever its subgroup is updated. `sum-squares` gives
 * one f32 partial sum per granule of 1024 elements: `partials` [ceil(count / 1024)].
 *
 * The order of the additions in a granule is fixed, four accumulators of four lanes, and squares
 * cannot be contracted into them, so the WebAssembly kernel gives the same bits. A square that is
 * not finite, and NaN, counts as the largest f32, which no sum of gradients in use reaches.
 *
 * Definition: gradient.cpu.ts. Grids: ceil(quads / 256) workgroups of 64; sum-squares
 * ceil(partials / 64).
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import { SUBGROUP_GRANULE, type StateDType } from '../schedule.js';
import { forEachQuad, WORKGROUP_SIZE } from './adam.wgsl.js';
import { quadType, wgslNarrow4 } from './narrow.wgsl.js';

/** Parameters of the kernels that round. */
export interface GradientKernelParams {
  readonly dtype: StateDType;
}

/** Gradients are the caller's: their last quad may be cut off, and reads past it give zeros. */
const LOAD_QUAD = /* wgsl */ `
fn load(i: u32) -> f32 {
  if (i < uniforms.count) { return source[i]; }
  return 0.0;
}
fn load_quad(i: u32) -> vec4<f32> {
  return vec4<f32>(load(4u * i), load(4u * i + 1u), load(4u * i + 2u), load(4u * i + 3u));
}
`;

/** Rounds gradients for the way down; see the head of this file. */
export const flushGradientKernel = defineKernel({
  name: 'flush-gradient',
  bindings: {
    source: { access: 'read', type: 'array<f32>' },
    result: {
      access: 'read-write',
      type: ({ dtype }: GradientKernelParams) => `array<${quadType(dtype)}>`,
    },
  },
  uniforms: { quads: 'u32', count: 'u32' },
  source: ({ dtype }: GradientKernelParams) =>
    wgslNarrow4(dtype) + LOAD_QUAD + forEachQuad('    result[i] = narrow4(load_quad(i));'),
});

/** Rounds gradients and adds them up on the device; see the head of this file. */
export const keepGradientKernel = defineKernel({
  name: 'keep-gradient',
  bindings: {
    source: { access: 'read', type: 'array<f32>' },
    kept: { access: 'read-write', type: 'array<vec4<f32>>' },
  },
  uniforms: { quads: 'u32', count: 'u32', keep: 'u32' },
  source: ({ dtype }: GradientKernelParams) =>
    wgslNarrow4(dtype) +
    LOAD_QUAD +
    forEachQuad(/* wgsl */ `
    let value = widen4(narrow4(load_quad(i)));
    if (uniforms.keep == 0u) { kept[i] = value; } else { kept[i] += value; }`),
});

/** Partial sums of squares; see the head of this file. */
export const sumSquaresKernel = defineKernel({
  name: 'sum-squares',
  bindings: {
    kept: { access: 'read', type: 'array<vec4<f32>>' },
    partials: { access: 'read-write', type: 'array<f32>' },
  },
  uniforms: { count: 'u32', partialCount: 'u32' },
  source: () => /* wgsl */ `
${wgslLinearWorkgroup}
const LARGEST = 3.4028234663852886e38f;
fn square(quad: u32, count: u32) -> vec4<f32> {
  if (4u * quad >= count) { return vec4<f32>(); }
  let x = kept[quad];
  let lanes = 4u * quad + vec4<u32>(0u, 1u, 2u, 3u);
  let s = x * x;
  let finite = select(vec4<f32>(LARGEST), s, s < vec4<f32>(LARGEST));
  return select(vec4<f32>(), finite, lanes < vec4<u32>(count));
}
@compute @workgroup_size(${WORKGROUP_SIZE})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
  let granule = linear_workgroup(id, groups) * ${WORKGROUP_SIZE}u + local;
  if (granule >= uniforms.partialCount) { return; }
  var sums: array<vec4<f32>, 4>;
  for (var step = 0u; step < ${SUBGROUP_GRANULE / 16}u; step++) {
    let quad = granule * ${SUBGROUP_GRANULE / 4}u + step * 4u;
    sums[0] += square(quad, uniforms.count);
    sums[1] += square(quad + 1u, uniforms.count);
    sums[2] += square(quad + 2u, uniforms.count);
    sums[3] += square(quad + 3u, uniforms.count);
  }
  let lanes = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  partials[granule] = (lanes.x + lanes.y) + (lanes.z + lanes.w);
}
`,
});

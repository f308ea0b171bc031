/**
 * Adds the weighted outputs of a token's experts to the residual stream.
 *
 * Shapes: outputs [tokens, chosen, width] f32, weights [tokens, chosen] f32, residual [tokens,
 * width] f32, added to in place; width is a multiple of 4. One invocation adds four elements.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';

/** The kernel; dispatch ceil(tokens * width / 4 / 64) workgroups. */
export const combineExpertsKernel = defineKernel({
  name: 'combine-experts',
  bindings: {
    outputs: { access: 'read', type: 'array<vec4<f32>>' },
    weights: { access: 'read', type: 'array<f32>' },
    residual: { access: 'read-write', type: 'array<vec4<f32>>' },
  },
  uniforms: { tokens: 'u32', chosen: 'u32', width: 'u32' },
  source: () => /* wgsl */ `
${wgslLinearWorkgroup}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let width = uniforms.width / 4u;
  let index = linear_workgroup(id, groups) * 64u + lane;
  let token = index / width;
  if (token >= uniforms.tokens) { return; }
  var sum = residual[index];
  for (var rank = 0u; rank < uniforms.chosen; rank++) {
    let row = token * uniforms.chosen + rank;
    sum += weights[row] * outputs[row * width + index % width];
  }
  residual[index] = sum;
}
`,
});

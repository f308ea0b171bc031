/**
 * Gated activation: y = silu(gate) * up, with silu(z) = z / (1 + exp(-z)).
 *
 * Shapes: gateUp [rows, 2 * width] f32 (gate first), y [rows, width] f32; width is a multiple of 4.
 * One invocation makes four elements. Source: Shazeer, 2020 (arXiv 2002.05202).
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';

/** The kernel; dispatch ceil(rows * width / 4 / 64) workgroups. */
export const siluMulKernel = defineKernel({
  name: 'silu-mul',
  bindings: {
    gateUp: { access: 'read', type: 'array<vec4<f32>>' },
    y: { access: 'read-write', type: 'array<vec4<f32>>' },
  },
  uniforms: { rows: 'u32', width: 'u32' },
  source: () => /* wgsl */ `
${wgslLinearWorkgroup}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let width = uniforms.width / 4u;
  let index = linear_workgroup(id, groups) * 64u + lane;
  let row = index / width;
  if (row >= uniforms.rows) { return; }
  let at = row * 2u * width + index % width;
  let gate = gateUp[at];
  // exp overflows to infinity only where the quotient is zero anyway; the clamp keeps it finite.
  y[index] = gate / (vec4<f32>(1.0) + exp(min(-gate, vec4<f32>(80.0)))) * gateUp[at + width];
}
`,
});

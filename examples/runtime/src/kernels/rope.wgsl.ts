/**
 * Rotary position embedding, in place on the query and key heads of fused rows.
 *
 * Shapes: rows [tokens, rowStride] f32, of which the first heads * headDim elements rotate;
 * rotations [tokens, headDim / 2] of (cos, sin), computed on the host in f64, because WGSL promises
 * little of sine and cosine at large angles. Style 'half' pairs element i with i + headDim / 2
 * (Hugging Face's Llama), 'interleaved' pairs 2 i with 2 i + 1 (GGUF files of Llama). One
 * invocation rotates one pair. Source: Su et al., 2021 (arXiv 2104.09864).
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import type { RopeStyle } from '../model-file.js';

/** The kernel; dispatch ceil(tokens * heads * headDim / 2 / 64) workgroups. */
export const ropeKernel = defineKernel({
  name: 'rope',
  bindings: {
    rotations: { access: 'read', type: 'array<vec2<f32>>' },
    rows: { access: 'read-write', type: 'array<f32>' },
  },
  uniforms: { tokens: 'u32', heads: 'u32', headDim: 'u32', rowStride: 'u32' },
  source: (params: { readonly style: RopeStyle }) => /* wgsl */ `
${wgslLinearWorkgroup}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let half_dim = uniforms.headDim / 2u;
  let index = linear_workgroup(id, groups) * 64u + lane;
  let token = index / (uniforms.heads * half_dim);
  if (token >= uniforms.tokens) { return; }
  let within = index % (uniforms.heads * half_dim);
  let pair = within % half_dim;
  let head = token * uniforms.rowStride + (within / half_dim) * uniforms.headDim;
  let first = head + ${params.style === 'half' ? 'pair' : '2u * pair'};
  let second = ${params.style === 'half' ? 'first + half_dim' : 'first + 1u'};
  let turn = rotations[token * half_dim + pair];
  let a = rows[first];
  let b = rows[second];
  rows[first] = a * turn.x - b * turn.y;
  rows[second] = a * turn.y + b * turn.x;
}
`,
});

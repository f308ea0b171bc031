/**
 * Sums over queries of q and of its outer product, per head: from them a policy has mean and
 * covariance of the queries of a prompt (ExpectedAttention, arXiv 2510.00636).
 *
 * Shapes: queries f32 [tokens, heads, headDim] rows, `queryStride` elements apart, before their
 * rotation; moments f32 [heads, headDim + 1, headDim], added to: rows of the outer product, then
 * the sum. One invocation owns four numbers; all sums in f32.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';

/** Invocations of a workgroup. */
export const MOMENT_LANES = 64;

/** The kernel; dispatch ceil(heads * (headDim + 1) * headDim / 4 / MOMENT_LANES) workgroups. */
export const queryMomentsKernel = defineKernel({
  name: 'query-moments',
  bindings: {
    queries: { access: 'read', type: 'array<vec4<f32>>' },
    moments: { access: 'read-write', type: 'array<vec4<f32>>' },
  },
  uniforms: {
    tokens: 'u32',
    heads: 'u32',
    headDim: 'u32',
    queryOffset: 'u32',
    queryStride: 'u32',
  },
  source: (_params: Record<string, never>) => /* wgsl */ `
${wgslLinearWorkgroup}
@compute @workgroup_size(${MOMENT_LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = linear_workgroup(id, groups) * ${MOMENT_LANES}u + lane;
  let vectors = uniforms.headDim / 4u;
  let column = i % vectors;
  let row = i / vectors % (uniforms.headDim + 1u);
  let head = i / vectors / (uniforms.headDim + 1u);
  if (head >= uniforms.heads) { return; }
  var sum = vec4<f32>(0.0);
  for (var token = 0u; token < uniforms.tokens; token++) {
    let query = (uniforms.queryOffset + token * uniforms.queryStride) / 4u + head * vectors;
    var factor = 1.0;
    if (row < uniforms.headDim) { factor = queries[query + row / 4u][row % 4u]; }
    sum += factor * queries[query + column];
  }
  moments[i] += sum;
}
`,
});

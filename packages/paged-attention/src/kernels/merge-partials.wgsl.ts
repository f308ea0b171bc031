/**
 * Merges the partial results of a decode's partitions: out = sum(acc_p * exp(m_p - m)) / sum(l_p *
 * exp(m_p - m)), m the largest m_p.
 *
 * Shapes: partials [rows, partitions, headDim / 4 + 1] vec4, the last of each (maximum, sum, 0, 0);
 * output f32 rows of `heads` heads, `outputStride` elements apart. rows = sequences * heads. One
 * invocation computes four elements of one row; weights are recomputed by each, which is cheaper
 * than a barrier at these counts. A row whose partitions are all empty gives zeros.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import { LOWEST } from './unroll.js';

/** Invocations of a workgroup. */
export const MERGE_LANES = 64;

function mergeSource(headDim: number, withStates: boolean): string {
  return /* wgsl */ `
${wgslLinearWorkgroup}
const HEAD_VECTORS = ${headDim / 4}u;
@compute @workgroup_size(${MERGE_LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = linear_workgroup(id, groups) * ${MERGE_LANES}u + lane;
  let row = i / HEAD_VECTORS;
  let d = i % HEAD_VECTORS;
  if (row >= uniforms.rows) { return; }
  let first = row * uniforms.partitions * (HEAD_VECTORS + 1u);
  var maximum = ${LOWEST};
  for (var p = 0u; p < uniforms.partitions; p++) {
    maximum = max(maximum, partials[first + p * (HEAD_VECTORS + 1u) + HEAD_VECTORS].x);
  }
  var sum = 0.0;
  var result = vec4<f32>(0.0);
  for (var p = 0u; p < uniforms.partitions; p++) {
    let at = first + p * (HEAD_VECTORS + 1u);
    let state = partials[at + HEAD_VECTORS];
    let weight = exp(state.x - maximum);
    sum += state.y * weight;
    result += partials[at + d] * weight;
  }
  let to = (uniforms.outputOffset + row / uniforms.heads * uniforms.outputStride) / 4u
    + row % uniforms.heads * HEAD_VECTORS + d;
  ${withStates ? 'if (d == 0u) { states[row] = vec2<f32>(maximum, sum); }' : ''}
  output[to] = select(result / sum, vec4<f32>(0.0), sum == 0.0);
}
`;
}

const bindings = {
  partials: { access: 'read', type: 'array<vec4<f32>>' },
  output: { access: 'read-write', type: 'array<vec4<f32>>' },
} as const;

const uniforms = {
  rows: 'u32',
  heads: 'u32',
  partitions: 'u32',
  outputOffset: 'u32',
  outputStride: 'u32',
} as const;

/** The kernel; dispatch ceil(rows * headDim / 4 / MERGE_LANES) workgroups. */
export const mergePartialsKernel = defineKernel({
  name: 'merge-partials',
  bindings,
  uniforms,
  source: (params: { readonly headDim: number }) => mergeSource(params.headDim, false),
});

/** The same, which also leaves states [rows]: maximum and sum of each row. */
export const mergePartialsStatesKernel = defineKernel({
  name: 'merge-partials-states',
  bindings: { ...bindings, states: { access: 'read-write', type: 'array<vec2<f32>>' } },
  uniforms,
  source: (params: { readonly headDim: number }) => mergeSource(params.headDim, true),
});

/**
 * Adds up the attention that cached tokens receive: softmax weights over queries, averaged over the
 * query heads of a KV head.
 *
 * The attention kernels leave each logit, and the maximum and sum of each row; so a weight costs
 * one exponential here, and keys are read once. Nothing of this runs where nobody asks for weights.
 *
 * Shapes: logits f32 [rows, logitStride], scaled; states [rows] (maximum, sum); sums f32 [tokens,
 * kvHeads], added to. Row of query i and head h: firstRow + i * heads + h. Query i sees tokens
 * 0 .. contextLength + i; those from `firstQuery` on count. One invocation owns one token of one KV
 * head, so nothing is atomic; neighbouring lanes read neighbouring logits.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';

/** Invocations of a workgroup. */
export const RECEIVE_LANES = 64;

/** The kernel; dispatch ceil((contextLength + queries) * kvHeads / RECEIVE_LANES) workgroups. */
export const receiveAttentionKernel = defineKernel({
  name: 'receive-attention',
  bindings: {
    logits: { access: 'read', type: 'array<f32>' },
    states: { access: 'read', type: 'array<vec2<f32>>' },
    sums: { access: 'read-write', type: 'array<f32>' },
  },
  uniforms: {
    queries: 'u32',
    firstQuery: 'u32',
    firstRow: 'u32',
    heads: 'u32',
    contextLength: 'u32',
    logitStride: 'u32',
  },
  source: (params: { readonly kvHeads: number }) => /* wgsl */ `
${wgslLinearWorkgroup}
const KV_HEADS = ${params.kvHeads}u;
@compute @workgroup_size(${RECEIVE_LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = linear_workgroup(id, groups) * ${RECEIVE_LANES}u + lane;
  let tokens = uniforms.contextLength + uniforms.queries;
  let token = i % tokens;
  let kv_head = i / tokens;
  if (kv_head >= KV_HEADS) { return; }
  let ratio = uniforms.heads / KV_HEADS;
  let visible = max(token, uniforms.contextLength) - uniforms.contextLength;
  var sum = 0.0;
  for (var query = max(uniforms.firstQuery, visible); query < uniforms.queries; query++) {
    let first = uniforms.firstRow + query * uniforms.heads + kv_head * ratio;
    for (var row = first; row < first + ratio; row++) {
      let state = states[row];
      sum += exp(logits[row * uniforms.logitStride + token] - state.x) / state.y;
    }
  }
  sums[token * KV_HEADS + kv_head] += sum / f32(ratio);
}
`,
});

/**
 * Sums per token, moved along with an eviction: entry i of the target is entry kept[i] of the
 * source, and zero from `count` on.
 *
 * Shapes: kept u32 [count]; source [layers, sourceTokens, width], target [layers, targetTokens,
 * width] f32, other ranges than the source's. One invocation writes one number.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';

/** Invocations of a workgroup. */
export const KEEP_LANES = 64;

/** The kernel; dispatch ceil(layers * targetTokens * width / KEEP_LANES) workgroups. */
export const keepSumsKernel = defineKernel({
  name: 'keep-sums',
  bindings: {
    kept: { access: 'read', type: 'array<u32>' },
    source: { access: 'read', type: 'array<f32>' },
    kept_sums: { access: 'read-write', type: 'array<f32>' },
  },
  uniforms: {
    count: 'u32',
    layers: 'u32',
    sourceTokens: 'u32',
    targetTokens: 'u32',
    width: 'u32',
  },
  source: (_params: Record<string, never>) => /* wgsl */ `
${wgslLinearWorkgroup}
@compute @workgroup_size(${KEEP_LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = linear_workgroup(id, groups) * ${KEEP_LANES}u + lane;
  let per_layer = uniforms.targetTokens * uniforms.width;
  let layer = i / per_layer;
  if (layer >= uniforms.layers) { return; }
  let token = i % per_layer / uniforms.width;
  var value = 0.0;
  if (token < uniforms.count && kept[token] < uniforms.sourceTokens) {
    value = source[(layer * uniforms.sourceTokens + kept[token]) * uniforms.width
      + i % uniforms.width];
  }
  kept_sums[i] = value;
}
`,
});

/**
 * Chooses experts: the `chosen` largest router logits of each token and their softmax weights.
 *
 * Shapes: logits [tokens, experts] f32, ids and weights [tokens, chosen] (u32, f32), largest first;
 * the lowest index wins a tie. Softmax over all experts, renormalised over the chosen ones, equals
 * softmax over the chosen ones. One invocation serves one token. Source: Jiang et al., 2024 (arXiv
 * 2401.04088).
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';

/** Most experts per token that the kernel chooses. */
export const MAX_CHOSEN = 8;

/** The kernel; dispatch ceil(tokens / 64) workgroups. */
export const routeExpertsKernel = defineKernel({
  name: 'route-experts',
  bindings: {
    logits: { access: 'read', type: 'array<f32>' },
    ids: { access: 'read-write', type: 'array<u32>' },
    weights: { access: 'read-write', type: 'array<f32>' },
  },
  uniforms: { tokens: 'u32', experts: 'u32', chosen: 'u32' },
  source: () => /* wgsl */ `
${wgslLinearWorkgroup}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let token = linear_workgroup(id, groups) * 64u + lane;
  if (token >= uniforms.tokens) { return; }
  let row = token * uniforms.experts;
  var taken: array<u32, ${MAX_CHOSEN}>;
  var values: array<f32, ${MAX_CHOSEN}>;
  var sum = 0.0;
  for (var rank = 0u; rank < uniforms.chosen; rank++) {
    var best = -3.402823e38;
    var index = 0u;
    for (var expert = 0u; expert < uniforms.experts; expert++) {
      var free = logits[row + expert] > best;
      for (var other = 0u; other < rank; other++) { free = free && taken[other] != expert; }
      if (free) { best = logits[row + expert]; index = expert; }
    }
    taken[rank] = index;
    values[rank] = exp(best - logits[row + taken[0]]);
    sum += values[rank];
  }
  for (var rank = 0u; rank < uniforms.chosen; rank++) {
    ids[token * uniforms.chosen + rank] = taken[rank];
    weights[token * uniforms.chosen + rank] = values[rank] / sum;
  }
}
`,
});

/**
 * Index of the largest logit of each row; the lowest index wins a tie.
 *
 * Shapes: logits [rows, columns] f32, ids [rows] u32. One workgroup of 256 lanes a row. The result
 * stays on the device, where the next step's embedding lookup reads it without a round trip.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import { wgslReduce } from './reduce.js';

/** The kernel; dispatch one workgroup per row. */
export const argmaxKernel = defineKernel({
  name: 'argmax',
  bindings: {
    logits: { access: 'read', type: 'array<f32>' },
    ids: { access: 'read-write', type: 'array<u32>' },
  },
  uniforms: { rows: 'u32', columns: 'u32' },
  source: () => /* wgsl */ `
struct Best { value: f32, index: u32 }
${wgslLinearWorkgroup}
fn better(a: Best, b: Best) -> Best {
  if (b.value > a.value || (b.value == a.value && b.index < a.index)) { return b; }
  return a;
}
${wgslReduce('Best', 256, 'better(a, b)')}
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = linear_workgroup(id, groups);
  if (row >= uniforms.rows) { return; }
  var best = Best(-3.402823e38, 0xffffffffu);
  for (var i = lane; i < uniforms.columns; i += 256u) {
    best = better(best, Best(logits[row * uniforms.columns + i], i));
  }
  shared_values[lane] = best;
  reduce_shared(lane);
  if (lane == 0u) { ids[row] = shared_values[0].index; }
}
`,
});

/**
 * Negative log-likelihood of a target token for each row of logits, in nats.
 *
 * Shapes: logits [rows, columns] f32, targets [rows] u32, losses [rows] f32. One workgroup of 256
 * lanes a row keeps a running maximum and a sum scaled to it, so large logits do not overflow.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import { wgslReduce } from './reduce.js';

/** The kernel; dispatch one workgroup per row. */
export const tokenLossKernel = defineKernel({
  name: 'token-loss',
  bindings: {
    logits: { access: 'read', type: 'array<f32>' },
    targets: { access: 'read', type: 'array<u32>' },
    losses: { access: 'read-write', type: 'array<f32>' },
  },
  uniforms: { rows: 'u32', columns: 'u32' },
  source: () => /* wgsl */ `
struct Sum { largest: f32, scaled: f32 }
${wgslLinearWorkgroup}
fn merge(a: Sum, b: Sum) -> Sum {
  let largest = max(a.largest, b.largest);
  return Sum(largest, a.scaled * exp(a.largest - largest) + b.scaled * exp(b.largest - largest));
}
${wgslReduce('Sum', 256, 'merge(a, b)')}
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = linear_workgroup(id, groups);
  if (row >= uniforms.rows) { return; }
  var sum = Sum(-3.0e38, 0.0);
  for (var i = lane; i < uniforms.columns; i += 256u) {
    sum = merge(sum, Sum(logits[row * uniforms.columns + i], 1.0));
  }
  shared_values[lane] = sum;
  reduce_shared(lane);
  if (lane == 0u) {
    let total = shared_values[0].largest + log(shared_values[0].scaled);
    losses[row] = total - logits[row * uniforms.columns + targets[row]];
  }
}
`,
});

/**
 * Root-mean-square normalisation: y = x / sqrt(mean(x^2) + epsilon) * weight, row by row.
 *
 * Shapes: x, y [rows, columns] f32, weight [columns] f32; columns is a multiple of 4. One workgroup
 * of 64 lanes a row; sums in f32. `firstRow` skips rows of x, so that only the last ones are
 * normalised. Source: Zhang and Sennrich, 2019 (arXiv 1910.07467).
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import { wgslReduce } from './reduce.js';

/** The kernel; dispatch one workgroup per row. */
export const rmsNormKernel = defineKernel({
  name: 'rms-norm',
  bindings: {
    x: { access: 'read', type: 'array<vec4<f32>>' },
    weight: { access: 'read', type: 'array<vec4<f32>>' },
    y: { access: 'read-write', type: 'array<vec4<f32>>' },
  },
  uniforms: { rows: 'u32', columns: 'u32', firstRow: 'u32', epsilon: 'f32' },
  source: () => /* wgsl */ `
${wgslLinearWorkgroup}
${wgslReduce('f32', 64, 'a + b')}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = linear_workgroup(id, groups);
  if (row >= uniforms.rows) { return; }
  let width = uniforms.columns / 4u;
  let source = (row + uniforms.firstRow) * width;
  var sum = 0.0;
  for (var i = lane; i < width; i += 64u) { sum += dot(x[source + i], x[source + i]); }
  shared_values[lane] = sum;
  reduce_shared(lane);
  let factor = inverseSqrt(shared_values[0] / f32(uniforms.columns) + uniforms.epsilon);
  for (var i = lane; i < width; i += 64u) {
    y[row * width + i] = x[source + i] * factor * weight[i];
  }
}
`,
});

/** The plainest kernel there is, as a bound for others: copies [4 x quads] f32, quad by quad. */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';

/**
 * Copies `source` to `result`, four quads an invocation, which is faster than one on software
 * drivers; dispatch {@link copyWorkgroups}.
 */
export const copyKernel = defineKernel({
  name: 'copy-quads',
  bindings: {
    source: { access: 'read', type: 'array<vec4<f32>>' },
    result: { access: 'read-write', type: 'array<vec4<f32>>' },
  },
  uniforms: { quads: 'u32' },
  source: () => /* wgsl */ `
${wgslLinearWorkgroup}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
  let first = linear_workgroup(id, groups) * 256u + local;
  for (var step = 0u; step < 4u; step++) {
    let i = first + step * 64u;
    if (i < uniforms.quads) { result[i] = source[i]; }
  }
}
`,
});

/** Workgroups that copy `quads` quads. */
export function copyWorkgroups(quads: number): number {
  return Math.ceil(quads / 256);
}

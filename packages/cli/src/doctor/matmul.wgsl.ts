/**
 * Dense f32 matrix product `c = a * b`, to measure what a plain kernel reaches on a device.
 *
 * Bindings: `a`, `b` and `c`, each [size, size], row-major f32 in vectors of four. Uniform `size`:
 * rows and columns, elements; a multiple of 8. Grid: size / 32 by size / 64 workgroups of 8 x 8
 * invocations, rounded up; each invocation computes 8 rows x 4 columns in registers. No workgroup
 * memory: barriers are dear on software drivers, and it is a figure for
 * comparing machines, not the fastest product. Sums run over k in order, in f32.
 */
import { defineKernel } from '@vramkit/core';

/** Rows of `c` that one invocation computes. */
export const rowsPerInvocation = 8;
/** Invocations of a workgroup along each of two dimensions. */
export const workgroupEdge = 8;

const rows = Array.from({ length: rowsPerInvocation }, (_, row) => row);

/** The kernel; see the head of this file. */
export const matmul = defineKernel({
  name: 'doctor-matmul',
  bindings: {
    a: { access: 'read', type: 'array<vec4<f32>>' },
    b: { access: 'read', type: 'array<vec4<f32>>' },
    c: { access: 'read-write', type: 'array<vec4<f32>>' },
  },
  uniforms: { size: 'u32' },
  source: (_params: Record<string, never>) => /* wgsl */ `
@compute @workgroup_size(${workgroupEdge}, ${workgroupEdge})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let width = uniforms.size / 4u;
  let row = id.y * ${rowsPerInvocation}u;
  if (id.x >= width || row >= uniforms.size) { return; }
${rows.map((r) => `  var sum${r} = vec4<f32>(0.0);`).join('\n')}
  for (var k = 0u; k < width; k++) {
    let b0 = b[(k * 4u) * width + id.x];
    let b1 = b[(k * 4u + 1u) * width + id.x];
    let b2 = b[(k * 4u + 2u) * width + id.x];
    let b3 = b[(k * 4u + 3u) * width + id.x];
${rows
  .map(
    (r) => `    let a${r} = a[(row + ${r}u) * width + k];
    sum${r} += a${r}.x * b0 + a${r}.y * b1 + a${r}.z * b2 + a${r}.w * b3;`,
  )
  .join('\n')}
  }
${rows.map((r) => `  c[(row + ${r}u) * width + id.x] = sum${r};`).join('\n')}
}`,
});

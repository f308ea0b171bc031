/** A kernel of ours for the tests and demonstrations: `y = factor * x`. */
import { defineKernel, type Batch, type Tensor } from '@vramkit/core';

const WORKGROUP = 64;

const scaleKernel = defineKernel({
  name: 'scale',
  bindings: {
    x: { access: 'read', type: 'array<f32>' },
    y: { access: 'read-write', type: 'array<f32>' },
  },
  uniforms: { count: 'u32', factor: 'f32' },
  source: () => /* wgsl */ `
// y[i] = factor * x[i] for i < count; a linear grid of 64 elements a workgroup.
@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < uniforms.count) { y[id.x] = uniforms.factor * x[id.x]; }
}`,
});

/** Records `y = factor * x` over tensors of one shape, f32. */
export function scale(batch: Batch, x: Tensor, y: Tensor, factor: number): void {
  const count = x.shape.reduce((product, extent) => product * extent, 1);
  batch.dispatch(scaleKernel, {
    params: {},
    bindings: { x, y },
    uniforms: { count, factor },
    workgroups: Math.ceil(count / WORKGROUP),
  });
}

/**
 * One Adam step on the device, in place, with the parameters narrowed for the model on the way.
 *
 * Shapes, [count] with count = 4 x quads: `gradient` f32; `master`, `first`, `second` f32;
 * `weights` of the parameter type. An invocation updates one quad, neighbours read neighbours; four
 * quads each took 2.5 times as long on lavapipe. Grid: ceil(quads / 64) workgroups of 64. Ends of
 * odd counts are padded to a quad; the padding is updated like the rest and never read.
 *
 * Numerics: f32, as the driver contracts and divides it; compare with adam.cpu.ts.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import type { StateDType } from '../schedule.js';
import { quadType, wgslNarrow4 } from './narrow.wgsl.js';

/** Invocations of one workgroup. */
export const WORKGROUP_SIZE = 64;

/** Parameters of {@link adamKernel}. */
export interface AdamKernelParams {
  /** Element type of `weights`. */
  readonly dtype: StateDType;
}

/** Workgroups that cover `quads` quads. */
export function quadWorkgroups(quads: number): number {
  return Math.ceil(quads / WORKGROUP_SIZE);
}

/** Text that runs `body` for the quad `i` of an invocation. */
export function forEachQuad(body: string): string {
  return /* wgsl */ `
${wgslLinearWorkgroup}
@compute @workgroup_size(${WORKGROUP_SIZE})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
  let i = linear_workgroup(id, groups) * ${WORKGROUP_SIZE}u + local;
  if (i >= uniforms.quads) { return; }
${body}
}
`;
}

/** See the head of this file. */
export const adamKernel = defineKernel({
  name: 'adam',
  bindings: {
    gradient: { access: 'read', type: 'array<vec4<f32>>' },
    master: { access: 'read-write', type: 'array<vec4<f32>>' },
    first: { access: 'read-write', type: 'array<vec4<f32>>' },
    second: { access: 'read-write', type: 'array<vec4<f32>>' },
    weights: {
      access: 'read-write',
      /** Storage of the parameter type. */
      type: ({ dtype }: AdamKernelParams) => `array<${quadType(dtype)}>`,
    },
  },
  uniforms: {
    quads: 'u32',
    beta1: 'f32',
    beta2: 'f32',
    rest1: 'f32',
    rest2: 'f32',
    epsilon: 'f32',
    rootScale: 'f32',
    stepSize: 'f32',
    decay: 'f32',
    l2: 'f32',
    gradientScale: 'f32',
  },
  source: ({ dtype }: AdamKernelParams) =>
    wgslNarrow4(dtype) +
    forEachQuad(/* wgsl */ `
    let p = master[i];
    let g = gradient[i] * uniforms.gradientScale + uniforms.l2 * p;
    let m = uniforms.beta1 * first[i] + uniforms.rest1 * g;
    let v = uniforms.beta2 * second[i] + uniforms.rest2 * g * g;
    let next = p * uniforms.decay
      - uniforms.stepSize * (m / (sqrt(v) * uniforms.rootScale + uniforms.epsilon));
    first[i] = m;
    second[i] = v;
    master[i] = next;
    weights[i] = narrow4(next);`),
});

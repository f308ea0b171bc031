/**
 * Rows of a weight matrix as f32, chosen by ids in a device buffer: the embedding lookup.
 *
 * Computes `y[i] = w[ids[i]]`. Where the matrix is split, each dispatch writes the rows whose ids
 * lie in its segment; ids beyond the matrix give zeros, written by the first segment's dispatch.
 *
 * Shapes: `ids` [count] from element `idBase` on; `codes`, `scales` rows
 * `[segmentFirst, segmentFirst + segmentRows)`; `y` [count, columns] f32 as vectors of four, from
 * vector `yBase` on. An invocation writes one step of one row (weight-step.wgsl.ts).
 * Grid: ceil(count * steps / 64) workgroups of 64.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import { loadStep, quadValue, range, weightStep, type StorageParams } from './weight-step.wgsl.js';

/** Invocations of one workgroup. */
export const GATHER_WORKGROUP_SIZE = 64;

function source(params: StorageParams): string {
  const step = weightStep(params);
  const quads = step.elements / 4;
  return /* wgsl */ `
${wgslLinearWorkgroup}
@compute @workgroup_size(${GATHER_WORKGROUP_SIZE})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
  let at = linear_workgroup(id, groups) * ${GATHER_WORKGROUP_SIZE}u + local;
  let row = at / uniforms.steps;
  if (row >= uniforms.count) { return; }
  let first = uniforms.yBase + at * ${quads}u;
  let source = ids[uniforms.idBase + row];
  if (source >= uniforms.rows) {
    if (uniforms.segmentFirst == 0u) {
${range(quads)
  .map((q) => `      y[first + ${q}u] = vec4<f32>();`)
  .join('\n')}
    }
    return;
  }
  if (source < uniforms.segmentFirst || source - uniforms.segmentFirst >= uniforms.segmentRows) {
    return;
  }
  let k = (source - uniforms.segmentFirst) * uniforms.steps + at % uniforms.steps;
${loadStep(step, 'c', 'k')
  .map((line) => `  ${line}`)
  .join('\n')}
${range(quads)
  .flatMap((q) => [...step.prepare('c', q), `y[first + ${q}u] = ${quadValue(step, 'c', q)};`])
  .map((line) => `  ${line}`)
  .join('\n')}
}
`;
}

/** See the head of this file. */
export const gatherRowsKernel = defineKernel({
  name: 'gather-rows',
  bindings: {
    codes: {
      access: 'read',
      type: (params: StorageParams) => `array<${weightStep(params).loadType}>`,
    },
    scales: {
      access: 'read',
      type: (params: StorageParams) => `array<${weightStep(params).scalesType}>`,
    },
    ids: { access: 'read', type: 'array<u32>' },
    y: { access: 'read-write', type: 'array<vec4<f32>>' },
  },
  uniforms: {
    count: 'u32',
    rows: 'u32',
    segmentFirst: 'u32',
    segmentRows: 'u32',
    steps: 'u32',
    idBase: 'u32',
    yBase: 'u32',
  },
  source,
});

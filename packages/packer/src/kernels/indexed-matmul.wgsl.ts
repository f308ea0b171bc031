/**
 * Product of each row with the weights of the expert that a device buffer names for it.
 *
 * Computes `y[i, n] = sum over k of x[i / xRowDivisor, k] * w[expertIds[i] * outputs + n, k]`. The ids
 * are read here, so routing needs no readback. Weights of all experts are one matrix of equal row
 * counts; where it is split into segments, each dispatch computes the outputs whose weight rows lie in
 * its segment. A row whose id names no expert gets zeros, written by the first segment's dispatch.
 *
 * Shapes: `x` [ceil(xRows / xRowDivisor), columns] f32 from vector `xBase` on; `expertIds` [xRows] from
 * element `idBase` on; `codes`, `scales` rows `[segmentFirst, segmentFirst + segmentRows)`; `y` element
 * (i, n) at `yBase + i * yStride + n`. Grid: one workgroup per row and range of
 * `workgroupSize * tileOutputs` columns, columns fastest.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import { codesType, weightStep, type StorageParams } from './codes.wgsl.js';
import { accumulateTile, declareAccumulators, range } from './register-tile.wgsl.js';

/** Parameters of {@link indexedMatmulKernel}. */
export interface IndexedMatmulParams extends StorageParams {
  /** Adds to y instead of replacing it. */
  readonly accumulate: boolean;
  /** Columns of y of one invocation. */
  readonly tileOutputs: number;
  readonly workgroupSize: number;
}

function source(params: IndexedMatmulParams): string {
  const { tileOutputs, workgroupSize } = params;
  const step = weightStep(params);
  const outputs = range(tileOutputs);
  const perWorkgroup = workgroupSize * tileOutputs;
  const store = params.accumulate ? '+=' : '=';
  return /* wgsl */ `
${wgslLinearWorkgroup}
@compute @workgroup_size(${workgroupSize})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
  let tiles = (uniforms.outputs + ${perWorkgroup - 1}u) / ${perWorkgroup}u;
  let tile = linear_workgroup(id, groups);
  let row = tile / tiles;
  let output = (tile % tiles) * ${perWorkgroup}u + local;
  if (row >= uniforms.xRows || output >= uniforms.outputs) { return; }
  let yRow = uniforms.yBase + row * uniforms.yStride;
  let expert = expertIds[uniforms.idBase + row];
  if (expert >= uniforms.experts) {
    if (uniforms.segmentFirst == 0u) {
${outputs
  .map(
    (n) => `      if (output + ${n * workgroupSize}u < uniforms.outputs) {
        y[yRow + output + ${n * workgroupSize}u] ${store} 0.0;
      }`,
  )
  .join('\n')}
    }
    return;
  }
  let steps = uniforms.steps;
  let firstRow = expert * uniforms.outputs;
  let segmentEnd = uniforms.segmentFirst + uniforms.segmentRows;
  if (firstRow >= segmentEnd || firstRow + uniforms.outputs <= uniforms.segmentFirst) { return; }
  let x0 = uniforms.xBase + (row / uniforms.xRowDivisor) * steps * ${step.elements / 4}u;
${outputs
  .map(
    (n) => `  let o${n} = output + ${n * workgroupSize}u;
  let r${n} = clamp(firstRow + o${n}, uniforms.segmentFirst, segmentEnd - 1u);
  let w${n} = (r${n} - uniforms.segmentFirst) * steps;`,
  )
  .join('\n')}
${declareAccumulators({ tileRows: 1, tileOutputs })}
${accumulateTile({ ...params, tileRows: 1 })}
${outputs
  .map(
    (n) =>
      `  if (o${n} < uniforms.outputs && r${n} == firstRow + o${n}) {\n` +
      `    y[yRow + o${n}] ${store} a0_${n};\n  }`,
  )
  .join('\n')}
}
`;
}

/** See the head of this file. */
export const indexedMatmulKernel = defineKernel({
  name: 'matmul-indexed',
  bindings: {
    x: { access: 'read', type: 'array<vec4<f32>>' },
    codes: { access: 'read', type: (params: IndexedMatmulParams) => codesType(params) },
    scales: { access: 'read', type: 'array<u32>' },
    expertIds: { access: 'read', type: 'array<u32>' },
    y: { access: 'read-write', type: 'array<f32>' },
  },
  uniforms: {
    xRows: 'u32',
    xRowDivisor: 'u32',
    outputs: 'u32',
    experts: 'u32',
    segmentFirst: 'u32',
    segmentRows: 'u32',
    steps: 'u32',
    xBase: 'u32',
    idBase: 'u32',
    yBase: 'u32',
    yStride: 'u32',
  },
  source,
});

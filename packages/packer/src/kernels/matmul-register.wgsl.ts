/**
 * Product of activations with a weight matrix, each invocation owning a tile of the result.
 *
 * Computes `y[m, n] = sum over k of x[m, k] * w[n, k]` (or `y +=`). An invocation owns `tileRows`
 * consecutive rows of x and `tileOutputs` columns of y, `workgroupSize` apart, and walks all of k
 * alone: no workgroup memory, no barrier. The invocations of a workgroup share their x rows, so loads
 * of x are uniform. This is the shape for devices whose invocations are lanes of one CPU core.
 *
 * Shapes: `x` [xRows, columns] f32 as vectors of four, from vector `xBase` on; `codes` and `scales`
 * one segment of `MatrixLayout`; `y` element (m, n) at `yBase + m * yStride + n`. Grid: one workgroup
 * per row tile and range of `workgroupSize * tileOutputs` columns, columns fastest. Rows and columns
 * beyond the end read the last one and store nothing.
 *
 * Numbers: affine groups are summed as `scale * sum(code * x) + minimum * sum(x)`, in f32.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import { codesType, weightStep, type StorageParams } from './codes.wgsl.js';
import {
  accumulateTile,
  declareAccumulators,
  range,
  type RegisterTile,
} from './register-tile.wgsl.js';

/** Parameters of {@link registerMatmulKernel}. */
export interface RegisterMatmulParams extends StorageParams, RegisterTile {
  /** Adds to y instead of replacing it. */
  readonly accumulate: boolean;
  readonly workgroupSize: number;
}

function source(params: RegisterMatmulParams): string {
  const { tileRows, tileOutputs, workgroupSize } = params;
  const step = weightStep(params);
  const rows = range(tileRows);
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
  let row = (tile / tiles) * ${tileRows}u;
  let output = (tile % tiles) * ${perWorkgroup}u + local;
  if (row >= uniforms.xRows || output >= uniforms.outputs) { return; }
  let steps = uniforms.steps;
  let rowVectors = steps * ${step.elements / 4}u;
${rows
  .map((m) => `  let x${m} = uniforms.xBase + min(row + ${m}u, uniforms.xRows - 1u) * rowVectors;`)
  .join('\n')}
${outputs
  .map(
    (n) =>
      `  let o${n} = output + ${n * workgroupSize}u;\n` +
      `  let w${n} = min(o${n}, uniforms.outputs - 1u) * steps;`,
  )
  .join('\n')}
${declareAccumulators(params)}
${accumulateTile(params)}
${rows
  .map((m) =>
    outputs
      .map(
        (n) =>
          `  if (row + ${m}u < uniforms.xRows && o${n} < uniforms.outputs) {\n` +
          `    y[uniforms.yBase + (row + ${m}u) * uniforms.yStride + o${n}] ${store} a${m}_${n};\n  }`,
      )
      .join('\n'),
  )
  .join('\n')}
}
`;
}

/** See the head of this file. */
export const registerMatmulKernel = defineKernel({
  name: 'matmul-register',
  bindings: {
    x: { access: 'read', type: 'array<vec4<f32>>' },
    codes: { access: 'read', type: (params: RegisterMatmulParams) => codesType(params) },
    scales: { access: 'read', type: 'array<u32>' },
    y: { access: 'read-write', type: 'array<f32>' },
  },
  uniforms: {
    xRows: 'u32',
    outputs: 'u32',
    steps: 'u32',
    xBase: 'u32',
    yBase: 'u32',
    yStride: 'u32',
  },
  source,
});

/**
 * Product of activations with a weight matrix where each lane owns columns of the result.
 *
 * Computes `y[m, n] = sum over k of x[m, k] * w[n, k]` (or `y +=`). An invocation owns `tileRows`
 * consecutive rows of x and `tileOutputs` columns of y, `workgroupSize` apart, and walks all of k
 * alone; x reaches the lanes by subgroup broadcast (lane-tile.wgsl.ts). No workgroup memory, no
 * barrier. This is the shape for devices whose invocations are lanes of a CPU core: one subgroup
 * keeps its whole tile in registers. On a GPU its loads of weights are a row apart and waste
 * bandwidth.
 *
 * Twin: matmul.cpu.ts. Operands: matmul-operands.wgsl.ts; `tileRows` is 1 in the indexed form.
 * Grid: one workgroup per row tile and range of `workgroupSize * tileOutputs` columns, columns
 * fastest. Rows and columns beyond the end read the last one and store nothing.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import { accumulateTile, declareAccumulators, type LaneTileParams } from './lane-tile.wgsl.js';
import {
  activationRows,
  INDEXED_BINDINGS,
  INDEXED_UNIFORMS,
  MATMUL_BINDINGS,
  MATMUL_UNIFORMS,
  rowSetup,
  storeResult,
  weightRows,
  type Indexing,
} from './matmul-operands.wgsl.js';
import { range, weightStep } from './weight-step.wgsl.js';

/** Parameters of {@link laneMatmulKernel} and {@link laneIndexedKernel}. */
export interface LaneMatmulParams extends LaneTileParams {
  readonly workgroupSize: number;
}

function source(params: LaneMatmulParams, indexing: Indexing): string {
  const indexed = indexing !== 'none';
  const { workgroupSize, tileRows, tileOutputs } = params;
  const perWorkgroup = workgroupSize * tileOutputs;
  const columns = range(tileOutputs).map((n) => `output + ${n * workgroupSize}u`);
  const stores = range(tileRows).flatMap((m) =>
    range(tileOutputs).map((n) => storeResult(m, n, `a${m}_${n}`, indexed)),
  );
  // The subgroup work is uniform: all that decides about it is the same in the whole workgroup. The
  // compiler cannot see that where the ids come from a buffer that is also bound for writing.
  return /* wgsl */ `
${wgslLinearWorkgroup}
@compute @workgroup_size(${workgroupSize})
@diagnostic(off, subgroup_uniformity)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32,
        @builtin(subgroup_invocation_id) subgroupLane: u32) {
  let tiles = (uniforms.outputs + ${perWorkgroup - 1}u) / ${perWorkgroup}u;
  let tile = linear_workgroup(id, groups);
  let row = (tile / tiles) * ${tileRows}u;
  let output = (tile % tiles) * ${perWorkgroup}u + local;
  if (row >= uniforms.xRows) { return; }
${rowSetup(indexing)}
${activationRows(weightStep(params).quads, tileRows, indexed)}
${weightRows(columns, indexed)}
${declareAccumulators(params)}
${accumulateTile(params)}
${stores.join('\n')}
}
`;
}

/** The plain form; see the head of this file. */
export const laneMatmulKernel = defineKernel({
  name: 'matmul-lanes',
  bindings: MATMUL_BINDINGS,
  uniforms: MATMUL_UNIFORMS,
  enables: () => ['subgroups'],
  source: (params: LaneMatmulParams) => source(params, 'none'),
});

/** The indexed form; see the head of this file. */
export const laneIndexedKernel = defineKernel({
  name: 'matmul-lanes-indexed',
  bindings: INDEXED_BINDINGS,
  uniforms: INDEXED_UNIFORMS,
  enables: () => ['subgroups'],
  source: (params: LaneMatmulParams & { readonly indexing: 'ids' | 'slots' }) =>
    source(params, params.indexing),
});

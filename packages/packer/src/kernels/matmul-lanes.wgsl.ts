/**
 * Product of activations with a weight matrix where each lane owns columns of the result.
 *
 * Computes `y[m, n] = sum over k of x[m, k] * w[n, k]` (or `y +=`). An invocation owns `tileRows`
 * consecutive rows of x and `tileOutputs` columns of y, `workgroupSize` apart, and walks all of k
 * alone; x reaches the lanes by subgroup broadcast (lane-tile.wgsl.ts, lane-chunks.wgsl.ts). No
 * workgroup memory, no barrier. This is the shape for devices whose invocations are lanes of a CPU
 * core. On a GPU its loads of weights are a row apart and waste bandwidth.
 *
 * Twin: matmul.cpu.ts. Operands: matmul-operands.wgsl.ts; `tileRows` is 1 in the indexed form.
 * Grid: one workgroup per row tile and range of `workgroupSize * tileOutputs` columns, columns
 * fastest. Rows and columns beyond the end read the last one and store nothing.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import { accumulateChunks } from './lane-chunks.wgsl.js';
import { accumulateTile, declareAccumulators, type LaneTileParams } from './lane-tile.wgsl.js';
import {
  activationRows,
  INDEXED_BINDINGS,
  INDEXED_UNIFORMS,
  MAPPED_BINDINGS,
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
  /** Whether a step is a loop over chunks (lane-chunks.wgsl.ts) or unrolled (lane-tile.wgsl.ts). */
  readonly chunked: boolean;
}

/** Statements that store the accumulators. */
function storeTile({ tileRows, tileOutputs, chunked }: LaneMatmulParams, indexed: boolean): string {
  const store = (m: string, value: (n: number) => string): string =>
    range(tileOutputs)
      .map((n) => storeResult(m, n, value(n), indexed))
      .join('\n');
  if (!chunked || tileRows === 1) {
    return range(tileRows)
      .map((m) => store(`${m}u`, (n) => `a${m}_${n}`))
      .join('\n');
  }
  // Row by row in a loop, so that stores are not most of the code that a driver compiles.
  const value = (n: number): string => {
    const fours = range(tileRows / 4).map((four) => {
      const each = range(4).map((i) => `a${4 * four + i}_${n}`);
      return `vec4<f32>(${each.join(', ')})[m % 4u]`;
    });
    return fours.reduce((rest, four, i) => `select(${rest}, ${four}, m >= ${4 * i}u)`);
  };
  return `  for (var m = 0u; m < min(${tileRows}u, uniforms.xRows - row); m++) {
${store('m', value)}
  }`;
}

function source(params: LaneMatmulParams, indexing: Indexing): string {
  const indexed = indexing !== 'none';
  const { workgroupSize, tileRows, tileOutputs, chunked } = params;
  const perWorkgroup = workgroupSize * tileOutputs;
  const columns = range(tileOutputs).map((n) => `output + ${n * workgroupSize}u`);
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
${indexed ? '  if (!here && !writesZeros) { return; }' : ''}
${chunked ? '' : activationRows(weightStep(params).quads, tileRows, indexed)}
${weightRows(columns, indexed)}
${declareAccumulators(params)}
${chunked ? accumulateChunks(params) : accumulateTile(params)}
${storeTile(params, indexed)}
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
  source: (params: LaneMatmulParams) => source(params, 'ids'),
});

/** The mapped form; see matmul-operands.wgsl.ts. */
export const laneMappedKernel = defineKernel({
  name: 'matmul-lanes-mapped',
  bindings: MAPPED_BINDINGS,
  uniforms: INDEXED_UNIFORMS,
  enables: () => ['subgroups'],
  source: (params: LaneMatmulParams) => source(params, 'slots'),
});

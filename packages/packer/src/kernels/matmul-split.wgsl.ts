/**
 * Product of single rows with a weight matrix, k split between invocations: the GPU's shape for one
 * row.
 *
 * Computes `y[m, n] = sum over k of x[m, k] * w[n, k]` (or `y +=`). In a workgroup of 128, `splits`
 * neighbours share four columns: each takes every `splits`-th step of k, so that neighbours read
 * neighbouring words of weights, and reads x once for its four columns. Their sums meet in
 * workgroup memory. Every row of the result reads its weights anew, which is right for one row and
 * for rows of different experts. Needs no optional feature.
 *
 * Twin: matmul.cpu.ts. Operands: matmul-operands.wgsl.ts. Grid: one workgroup per row and range of
 * `4 * 128 / splits` columns, columns fastest.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
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
import {
  loadStep,
  quadFactors,
  range,
  weightStep,
  type StorageParams,
  type WeightStep,
} from './weight-step.wgsl.js';

/** Parameters of {@link splitMatmulKernel} and {@link splitIndexedKernel}. */
export interface SplitMatmulParams extends StorageParams {
  /** Invocations that share a column: 8, 16 or 32. */
  readonly splits: number;
}

/** Invocations of a workgroup, and columns of one invocation. */
export const SPLIT = { threads: 128, outputs: 4 } as const;

/** Columns of one workgroup. */
export function splitOutputs(splits: number): number {
  return (SPLIT.threads / splits) * SPLIT.outputs;
}

/** How many invocations share a column: few for short rows, so that none is left without work. */
export function splitsFor(steps: number): number {
  if (steps <= 24) return 8;
  return steps <= 64 ? 16 : 32;
}

/** Statements that add step k to `a<n>`. */
function stepProducts(step: WeightStep): string[] {
  const outputs = range(SPLIT.outputs);
  const lines = outputs.flatMap((n) => loadStep(step, `c${n}`, `w${n} + k`));
  const groups = Math.max(1, step.groups);
  const perGroup = step.quads / groups;
  for (const group of range(groups)) {
    lines.push('{');
    for (const n of outputs) lines.push(`var d${n} = 0.0;`);
    lines.push('var t = vec4<f32>();');
    for (const i of range(perGroup)) {
      const quad = group * perGroup + i;
      lines.push(`let x_${quad} = x[x0 + k * ${step.quads}u + ${quad}u];`);
      if (step.groups > 0) {
        lines.push(`t += x_${quad};`, `let z_${quad} = x_${quad} * ${quadFactors(step, quad)};`);
      }
      for (const n of outputs) {
        lines.push(...step.prepare(`c${n}`, quad));
        const elements = range(4).map((e) => step.element(`c${n}`, 4 * quad + e));
        const factor = step.groups > 0 ? `z_${quad}` : `x_${quad}`;
        lines.push(`d${n} += dot(vec4<f32>(${elements.join(', ')}), ${factor});`);
      }
    }
    if (step.groups > 0) lines.push('let u = t.x + t.y + t.z + t.w;');
    for (const n of outputs) {
      const scaled = `c${n}_g${group}.x * d${n} + c${n}_g${group}.y * u`;
      lines.push(`a${n} += ${step.groups > 0 ? scaled : `d${n}`};`);
    }
    lines.push('}');
  }
  return lines;
}

function source(params: SplitMatmulParams, indexing: Indexing): string {
  const indexed = indexing !== 'none';
  const { splits } = params;
  const step = weightStep(params);
  const outputs = range(SPLIT.outputs);
  const perWorkgroup = splitOutputs(splits);
  const { threads } = SPLIT;
  return /* wgsl */ `
${wgslLinearWorkgroup}
var<workgroup> partial: array<f32, ${threads * SPLIT.outputs}>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
  let tiles = (uniforms.outputs + ${perWorkgroup - 1}u) / ${perWorkgroup}u;
  let tile = linear_workgroup(id, groups);
  let row = tile / tiles;
  if (row >= uniforms.xRows) { return; }
  let part = local % ${splits}u;
  let output = (tile % tiles) * ${perWorkgroup}u + (local / ${splits}u) * ${SPLIT.outputs}u;
${rowSetup(indexing)}
${activationRows(step.quads, 1, indexed)}
${weightRows(
  outputs.map((n) => `output + ${n}u`),
  indexed,
)}
${outputs.map((n) => `  var a${n} = 0.0;`).join('\n')}
  for (var k = part; k < steps; k += ${splits}u) {
${stepProducts(step)
  .map((line) => `    ${line}`)
  .join('\n')}
  }
${outputs.map((n) => `  partial[${n * threads}u + local] = a${n};`).join('\n')}
  workgroupBarrier();
  if (part != 0u) { return; }
${outputs
  .map(
    (n) => `  var s${n} = 0.0;
  for (var i = 0u; i < ${splits}u; i++) { s${n} += partial[${n * threads}u + local + i]; }
${storeResult('0u', n, `s${n}`, indexed)}`,
  )
  .join('\n')}
}
`;
}

/** The plain form; see the head of this file. */
export const splitMatmulKernel = defineKernel({
  name: 'matmul-split',
  bindings: MATMUL_BINDINGS,
  uniforms: MATMUL_UNIFORMS,
  source: (params: SplitMatmulParams) => source(params, 'none'),
});

/** The indexed form; see the head of this file. */
export const splitIndexedKernel = defineKernel({
  name: 'matmul-split-indexed',
  bindings: INDEXED_BINDINGS,
  uniforms: INDEXED_UNIFORMS,
  source: (params: SplitMatmulParams) => source(params, 'ids'),
});

/** The mapped form; see matmul-operands.wgsl.ts. */
export const splitMappedKernel = defineKernel({
  name: 'matmul-split-mapped',
  bindings: MAPPED_BINDINGS,
  uniforms: INDEXED_UNIFORMS,
  source: (params: SplitMatmulParams) => source(params, 'slots'),
});

/**
 * Product of activations with a weight matrix through tiles in workgroup memory: the GPU's shape
 * for many rows.
 *
 * Computes `y[m, n] = sum over k of x[m, k] * w[n, k]` (or `y +=`). A workgroup of 64 computes 32
 * rows by 64 columns. For each step of k it stores x and the decoded weights in workgroup memory;
 * then each invocation multiplies 4 rows by 8 columns, both 8 apart. Rows of a tile are an odd
 * number of vectors long, so that the eight invocations that read one phase meet different banks.
 * It takes 13.5 KiB, under the 16 KiB that every device has, and needs no optional feature.
 *
 * Twin: matmul.cpu.ts. Operands: matmul-operands.wgsl.ts. Grid: one workgroup per tile, columns
 * fastest.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import { MATMUL_BINDINGS, MATMUL_UNIFORMS } from './matmul-operands.wgsl.js';
import { loadStep, quadValue, range, weightStep, type StorageParams } from './weight-step.wgsl.js';

/** Rows and columns of the result that one workgroup computes. */
export const TILED = { rows: 32, outputs: 64 } as const;
const THREADS = 64;
const SIDE = 8;

function source(params: StorageParams): string {
  const step = weightStep(params);
  const { quads } = step;
  const stride = quads + 1;
  const rows = range(TILED.rows / SIDE);
  const outputs = range(TILED.outputs / SIDE);
  const each = <T>(items: readonly T[], line: (item: T) => string): string =>
    items.map(line).join('\n');
  return /* wgsl */ `
${wgslLinearWorkgroup}
var<workgroup> xTile: array<vec4<f32>, ${TILED.rows * stride}>;
var<workgroup> wTile: array<vec4<f32>, ${TILED.outputs * stride}>;

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
  let tiles = (uniforms.outputs + ${TILED.outputs - 1}u) / ${TILED.outputs}u;
  let tile = linear_workgroup(id, groups);
  let firstRow = (tile / tiles) * ${TILED.rows}u;
  let firstOutput = (tile % tiles) * ${TILED.outputs}u;
  if (firstRow >= uniforms.xRows) { return; }
  let column = local % ${SIDE}u;
  let line = local / ${SIDE}u;
  let steps = uniforms.steps;
  let w = min(firstOutput + local, uniforms.outputs - 1u) * steps;
${each(rows, (m) => each(outputs, (n) => `  var a${m}_${n} = 0.0;`))}
  for (var k = 0u; k < steps; k++) {
    for (var i = local; i < ${TILED.rows * quads}u; i += ${THREADS}u) {
      let r = min(firstRow + i / ${quads}u, uniforms.xRows - 1u);
      xTile[(i / ${quads}u) * ${stride}u + i % ${quads}u] =
        x[uniforms.xBase + (r * steps + k) * ${quads}u + i % ${quads}u];
    }
${each(loadStep(step, 'c', 'w + k'), (text) => `    ${text}`)}
${each(range(quads), (q) =>
  each(
    [...step.prepare('c', q), `wTile[local * ${stride}u + ${q}u] = ${quadValue(step, 'c', q)};`],
    (text) => `    ${text}`,
  ),
)}
    workgroupBarrier();
    for (var q = 0u; q < ${quads}u; q++) {
${each(rows, (m) => `      let x${m} = xTile[(line + ${m * SIDE}u) * ${stride}u + q];`)}
${each(outputs, (n) => {
  const load = `      let w${n} = wTile[(column + ${n * SIDE}u) * ${stride}u + q];`;
  return [load, ...rows.map((m) => `      a${m}_${n} += dot(w${n}, x${m});`)].join('\n');
})}
    }
    workgroupBarrier();
  }
${each(rows, (m) =>
  each(
    outputs,
    (n) => `  {
    let r = firstRow + line + ${m * SIDE}u;
    let o = firstOutput + column + ${n * SIDE}u;
    if (r < uniforms.xRows && o < uniforms.outputs) {
      let at = uniforms.yBase + r * uniforms.yStride + o;
      var sum = a${m}_${n};
      if (uniforms.accumulate != 0u) { sum += y[at]; }
      y[at] = sum;
    }
  }`,
  ),
)}
}
`;
}

/** See the head of this file. */
export const tiledMatmulKernel = defineKernel({
  name: 'matmul-tiled',
  bindings: MATMUL_BINDINGS,
  uniforms: MATMUL_UNIFORMS,
  source,
});

/**
 * Plain dense f32 products `y = x * b`, the yardstick that fused kernels are measured against.
 *
 * Bindings: `x` [rows, depth], `b` [depth, outputs], `y` [rows, outputs], row-major f32 in
 * vectors of four. Uniforms `rows`, `depth`, `outputs` in elements; depth and outputs are
 * multiples of 4. `b` has the outputs side by side, so that neighbouring invocations read
 * neighbouring vectors.
 *
 * Two kernels, because no one shape suits every machine:
 * - registers: an invocation computes `tileRows` rows x `tileVectors * 4` outputs from memory.
 *   Grid: outputs / (4 * tileVectors * workgroupSize) by rows / tileRows, rounded up. Good on
 *   software drivers, where a barrier is dear, and for a single row.
 * - shared: a workgroup of 16 x 16 computes 64 x 64 outputs and shares slices of 16 through
 *   workgroup memory. Grid: outputs / 64 by rows / 64, rounded up. Good on hardware with many rows.
 *
 * Sums run over depth in order, in f32. Reference: Goto and van de Geijn, "Anatomy of
 * High-Performance Matrix Multiplication", ACM TOMS 2008, for the two levels of tiles.
 */
import { defineKernel } from '@vramkit/core';

/** Parameters of {@link registerKernel}. */
export interface RegisterTile {
  /** Rows of one invocation. */
  readonly tileRows: number;
  /** Vectors of four outputs of one invocation. */
  readonly tileVectors: number;
  /** Invocations of a workgroup. */
  readonly workgroupSize: number;
}

const bindings = {
  x: { access: 'read', type: 'array<vec4<f32>>' },
  b: { access: 'read', type: 'array<vec4<f32>>' },
  y: { access: 'read-write', type: 'array<vec4<f32>>' },
} as const;
const uniforms = { rows: 'u32', depth: 'u32', outputs: 'u32' } as const;
const lanes = ['x', 'y', 'z', 'w'] as const;

function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

/** See the head of this file. A row beyond the last computes the last again and stores nothing. */
export const registerKernel = defineKernel({
  name: 'bench-matmul-registers',
  bindings,
  uniforms,
  source: ({ tileRows, tileVectors, workgroupSize }: RegisterTile) => {
    const rows = range(tileRows);
    const vectors = range(tileVectors);
    const each = (text: (row: number, vector: number) => string): string =>
      rows.flatMap((row) => vectors.map((vector) => text(row, vector))).join('\n');
    return /* wgsl */ `
@compute @workgroup_size(${workgroupSize})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let width = uniforms.outputs / 4u;
  let depth4 = uniforms.depth / 4u;
  let column = id.x * ${tileVectors}u;
  let row = id.y * ${tileRows}u;
  if (column >= width || row >= uniforms.rows) { return; }
${rows.map((r) => `  let base${r} = min(row + ${r}u, uniforms.rows - 1u) * depth4;`).join('\n')}
${vectors.map((v) => `  let column${v} = min(column + ${v}u, width - 1u);`).join('\n')}
${each((r, v) => `  var sum${r}_${v} = vec4<f32>(0.0);`)}
  for (var k = 0u; k < depth4; k++) {
${rows.map((r) => `    let x${r} = x[base${r} + k];`).join('\n')}
${lanes
  .map((lane, index) =>
    vectors
      .map(
        (v) => `    let b${index}_${v} = b[(k * 4u + ${index}u) * width + column${v}];
${rows.map((r) => `    sum${r}_${v} += x${r}.${lane} * b${index}_${v};`).join('\n')}`,
      )
      .join('\n'),
  )
  .join('\n')}
  }
${each(
  (r, v) => `  if (row + ${r}u < uniforms.rows && column + ${v}u < width) {
    y[(row + ${r}u) * width + column + ${v}u] = sum${r}_${v};
  }`,
)}
}`;
  },
});

/** Edge of the square of outputs that a workgroup of {@link sharedKernel} computes. */
export const sharedTile = 64;
const edge = 16;
const rowsEach = sharedTile / edge;

/** See the head of this file. */
export const sharedKernel = defineKernel({
  name: 'bench-matmul-shared',
  bindings,
  uniforms,
  source: (_params: Record<string, never>) => /* wgsl */ `
var<workgroup> tileX: array<f32, ${sharedTile * edge}>;
var<workgroup> tileB: array<vec4<f32>, ${(edge * sharedTile) / 4}>;
@compute @workgroup_size(${edge}, ${edge})
fn main(@builtin(local_invocation_id) local: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
  let width = uniforms.outputs / 4u;
  let depth4 = uniforms.depth / 4u;
  let lane = local.y * ${edge}u + local.x;
  let column = group.x * ${edge}u + local.x;
  let firstRow = group.y * ${sharedTile}u;
${range(rowsEach)
  .map((r) => `  var sum${r} = vec4<f32>(0.0);`)
  .join('\n')}
  for (var slice = 0u; slice < uniforms.depth; slice += ${edge}u) {
    let xRow = firstRow + lane / 4u;
    let xColumn = slice / 4u + lane % 4u;
    var value = vec4<f32>(0.0);
    if (xRow < uniforms.rows && xColumn < depth4) { value = x[xRow * depth4 + xColumn]; }
    let at = (lane / 4u) * ${edge}u + (lane % 4u) * 4u;
    tileX[at] = value.x;
    tileX[at + 1u] = value.y;
    tileX[at + 2u] = value.z;
    tileX[at + 3u] = value.w;
    var weights = vec4<f32>(0.0);
    if (slice + local.y < uniforms.depth && column < width) {
      weights = b[(slice + local.y) * width + column];
    }
    tileB[local.y * ${edge}u + local.x] = weights;
    workgroupBarrier();
    for (var k = 0u; k < ${edge}u; k++) {
      let w = tileB[k * ${edge}u + local.x];
${range(rowsEach)
  .map((r) => `      sum${r} += tileX[(local.y * ${rowsEach}u + ${r}u) * ${edge}u + k] * w;`)
  .join('\n')}
    }
    workgroupBarrier();
  }
  let row = firstRow + local.y * ${rowsEach}u;
${range(rowsEach)
  .map(
    (r) => `  if (row + ${r}u < uniforms.rows && column < width) {
    y[(row + ${r}u) * width + column] = sum${r};
  }`,
  )
  .join('\n')}
}`,
});

/**
 * What every product kernel has in common: bindings, uniforms, and where rows and results lie.
 *
 * Shapes: `x` [xRows, columns] f32 as vectors of four, from vector `xBase` on; `codes` and `scales`
 * one segment of `MatrixLayout`, `outputs` rows of `steps` steps; `y` element (m, n) at
 * `yBase + m * yStride + n`.
 *
 * The indexed form takes the weights of row i from the expert that `expertIds[idBase + i]` names,
 * and its x from row `i / xRowDivisor`; `outputs` is the rows of one expert. A dispatch sees the
 * rows of weights `[segmentFirst, segmentFirst + segmentRows)` and writes the columns computed from
 * them. Where an id names no expert, the first segment's dispatch writes zeros.
 *
 * In the mapped form the weights hold some of the experts: expert e is the one in slot `slots[e]`,
 * and where that is no slot, another matrix has it and this dispatch leaves its rows alone.
 */
import { range, weightStep, type StorageParams } from './weight-step.wgsl.js';

/** Bindings of a product. */
export const MATMUL_BINDINGS = {
  x: { access: 'read', type: 'array<vec4<f32>>' },
  codes: {
    access: 'read',
    type: (params: StorageParams) => `array<${weightStep(params).loadType}>`,
  },
  scales: {
    access: 'read',
    type: (params: StorageParams) => `array<${weightStep(params).scalesType}>`,
  },
  y: { access: 'read-write', type: 'array<f32>' },
} as const;

/** Bindings of an indexed product. */
export const INDEXED_BINDINGS = {
  ...MATMUL_BINDINGS,
  expertIds: { access: 'read', type: 'array<u32>' },
} as const;

/**
 * Bindings of the mapped form. The other has no `slots`: what stood in for it would be bound twice,
 * which WebGPU forbids where the buffer is written too.
 */
export const MAPPED_BINDINGS = {
  ...INDEXED_BINDINGS,
  /** The table, [experts]. */
  slots: { access: 'read', type: 'array<u32>' },
} as const;

/** Uniforms of a product. */
export const MATMUL_UNIFORMS = {
  xRows: 'u32',
  outputs: 'u32',
  steps: 'u32',
  xBase: 'u32',
  yBase: 'u32',
  yStride: 'u32',
  accumulate: 'u32',
} as const;

/** Uniforms of an indexed product. */
export const INDEXED_UNIFORMS = {
  ...MATMUL_UNIFORMS,
  xRowDivisor: 'u32',
  experts: 'u32',
  segmentFirst: 'u32',
  segmentRows: 'u32',
  idBase: 'u32',
  /** Slots of the weights; `experts` where they are not mapped. */
  slotCount: 'u32',
  /** Whether rows of no expert are this matrix's to fill with zeros. */
  writesUnknown: 'u32',
} as const;

/** How rows choose their weights: all alike, by expert id, or by id and a table of slots. */
export type Indexing = 'none' | 'ids' | 'slots';

/**
 * WGSL after `row` is known: what {@link weightRows} and {@link storeResult} use. `steps` is zero
 * where the segment has nothing for the row, so that no control flow depends on the id.
 */
export function rowSetup(indexing: Indexing): string {
  if (indexing === 'none') return '  let steps = uniforms.steps;';
  const slot = indexing === 'ids' ? 'expert' : 'slots[min(expert, uniforms.experts - 1u)]';
  return /* wgsl */ `
  let expert = expertIds[uniforms.idBase + row];
  let slot = ${slot};
  let known = expert < uniforms.experts && slot < uniforms.slotCount;
  let firstRow = select(0u, slot, known) * uniforms.outputs;
  let segmentEnd = uniforms.segmentFirst + uniforms.segmentRows;
  let here = known && firstRow < segmentEnd && firstRow + uniforms.outputs > uniforms.segmentFirst;
  let steps = select(0u, uniforms.steps, here);
  let writesZeros =
    expert >= uniforms.experts && uniforms.segmentFirst == 0u && uniforms.writesUnknown != 0u;`;
}

/** `x<m>`, the first vector of tile row m, clamped to the last row. */
export function activationRows(quads: number, tileRows: number, indexed: boolean): string {
  const rowOf = (m: number): string =>
    indexed ? 'row / uniforms.xRowDivisor' : `min(row + ${m}u, uniforms.xRows - 1u)`;
  return range(tileRows)
    .map((m) => `  let x${m} = uniforms.xBase + (${rowOf(m)}) * uniforms.steps * ${quads}u;`)
    .join('\n');
}

/** `w<n>`, the first step of the weights of column `o<n>`, clamped into the segment. */
export function weightRows(outputs: readonly string[], indexed: boolean): string {
  return outputs
    .map((output, n) => {
      const o = `  let o${n} = ${output};`;
      if (!indexed) {
        return `${o}\n  let w${n} = min(o${n}, uniforms.outputs - 1u) * uniforms.steps;`;
      }
      return `${o}
  let r${n} = clamp(firstRow + o${n}, uniforms.segmentFirst, segmentEnd - 1u);
  let w${n} = (r${n} - uniforms.segmentFirst) * uniforms.steps;`;
    })
    .join('\n');
}

/** Stores `value` as column `o<n>` of tile row m, where there is one. */
export function storeResult(m: string, n: number, value: string, indexed: boolean): string {
  const at = `uniforms.yBase + (row + ${m}) * uniforms.yStride + o${n}`;
  const inside = `row + ${m} < uniforms.xRows && o${n} < uniforms.outputs`;
  const computed = `(here && r${n} == firstRow + o${n}) || writesZeros`;
  return /* wgsl */ `  if (${indexed ? `${inside} && (${computed})` : inside}) {
    var sum = ${value};
    if (uniforms.accumulate != 0u) { sum += y[${at}]; }
    y[${at}] = sum;
  }`;
}

/**
 * WGSL that reads weights: a step of elements from one row, as vectors of four floats.
 *
 * Every format is read in steps that fill one load or a few: a group for affine formats, four
 * elements for dense ones. {@link weightStep} gives what a kernel needs to read a step: the store type
 * of the codes, how many loads a step takes, and an expression for each vector of four in terms of
 * the loaded words. Affine codes come out as floats 0 to 255 before scale and minimum.
 */
import type { GroupSize, MatrixFormat } from '../matrix-layout.js';

/** Storage of a matrix as a kernel is specialised by it. */
export interface StorageParams {
  readonly format: MatrixFormat;
  /** Columns that share a scale, or 0 for dense formats. */
  readonly groupSize: GroupSize | 0;
}

/** How a kernel reads one step of a row. */
export interface WeightStep {
  /** Consecutive elements of a step. */
  readonly elements: number;
  /** WGSL store type of one load. */
  readonly loadType: string;
  /** Loads of a step. */
  readonly loads: number;
  /** Whether codes still need scale and minimum. */
  readonly isAffine: boolean;
  /** Elements `[4 quad, 4 quad + 4)` of the step as a `vec4<f32>`, given the names of the loads. */
  readonly quad: (loads: readonly string[], quad: number) => string;
}

const COMPONENTS = ['x', 'y', 'z', 'w'] as const;

/** The 32-bit word `index` of loads that hold `width` words each. */
function word(loads: readonly string[], index: number, width: number): string {
  return `${loads[Math.floor(index / width)]}.${COMPONENTS[index % width]}`;
}

/** How to read a step of this storage. */
export function weightStep({ format, groupSize }: StorageParams): WeightStep {
  switch (format) {
    case 'f32':
      return dense('vec4<f32>', ([load]) => `${load}`);
    case 'f16':
      return dense(
        'vec2<u32>',
        ([load]) => `vec4<f32>(unpack2x16float(${load}.x), unpack2x16float(${load}.y))`,
      );
    case 'bf16':
      return dense(
        'vec2<u32>',
        ([load]) =>
          `bitcast<vec4<f32>>(vec4<u32>(${load}.x << 16u, ${load}.x & 0xffff0000u, ` +
          `${load}.y << 16u, ${load}.y & 0xffff0000u))`,
      );
    case 'affine4':
    case 'affine8':
      return affine(format === 'affine4' ? 4 : 8, groupSize);
  }
}

function dense(loadType: string, quad: WeightStep['quad']): WeightStep {
  return { elements: 4, loadType, loads: 1, isAffine: false, quad };
}

function affine(bits: 4 | 8, groupSize: number): WeightStep {
  const words = (groupSize * bits) / 32;
  const width = Math.min(4, words);
  const quad: WeightStep['quad'] = (loads, index) => {
    const source = word(loads, Math.floor((index * bits) / 8), width);
    const first = bits === 4 ? (index % 2) * 16 : 0;
    const shifts = [0, 1, 2, 3].map((i) => `${first + i * bits}u`).join(', ');
    return `vec4<f32>((vec4<u32>(${source}) >> vec4<u32>(${shifts})) & vec4<u32>(${2 ** bits - 1}u))`;
  };
  return {
    elements: groupSize,
    loadType: `vec${width}<u32>`,
    loads: words / width,
    isAffine: true,
    quad,
  };
}

/** WGSL type of the codes binding. */
export function codesType(storage: StorageParams): string {
  return `array<${weightStep(storage).loadType}>`;
}

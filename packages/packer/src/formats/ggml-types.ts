/**
 * The block types of GGUF files: how many weights a block holds and how many bytes it takes.
 *
 * A tensor is a sequence of rows; a row is a whole number of blocks; a block is stored
 * little-endian with its scales and codes together. Byte layouts are in `ggml-blocks.ts` and
 * `ggml-k-blocks.ts`.
 */

/** Block types that this package reads; F32, F16 and BF16 are blocks of one weight. */
export type GgmlType =
  | 'F32'
  | 'F16'
  | 'BF16'
  | 'Q4_0'
  | 'Q4_1'
  | 'Q5_0'
  | 'Q5_1'
  | 'Q8_0'
  | 'Q2_K'
  | 'Q3_K'
  | 'Q4_K'
  | 'Q5_K'
  | 'Q6_K';

/** Size of one block. */
export interface GgmlBlock {
  /** Weights in one block. */
  readonly weights: number;
  /** Bytes of one block. */
  readonly bytes: number;
}

/** Writes the values of the block at byte `at` to `out` from element `to`. */
export type BlockDequantizer = (view: DataView, at: number, out: Float32Array, to: number) => void;

const BLOCKS: Readonly<Record<GgmlType, GgmlBlock>> = {
  F32: { weights: 1, bytes: 4 },
  F16: { weights: 1, bytes: 2 },
  BF16: { weights: 1, bytes: 2 },
  Q4_0: { weights: 32, bytes: 18 },
  Q4_1: { weights: 32, bytes: 20 },
  Q5_0: { weights: 32, bytes: 22 },
  Q5_1: { weights: 32, bytes: 24 },
  Q8_0: { weights: 32, bytes: 34 },
  Q2_K: { weights: 256, bytes: 84 },
  Q3_K: { weights: 256, bytes: 110 },
  Q4_K: { weights: 256, bytes: 144 },
  Q5_K: { weights: 256, bytes: 176 },
  Q6_K: { weights: 256, bytes: 210 },
};

/** Names by the number that a GGUF file stores; gaps are types that were withdrawn. */
const NAMES: Readonly<Record<number, string>> = {
  0: 'F32',
  1: 'F16',
  2: 'Q4_0',
  3: 'Q4_1',
  6: 'Q5_0',
  7: 'Q5_1',
  8: 'Q8_0',
  9: 'Q8_1',
  10: 'Q2_K',
  11: 'Q3_K',
  12: 'Q4_K',
  13: 'Q5_K',
  14: 'Q6_K',
  15: 'Q8_K',
  16: 'IQ2_XXS',
  17: 'IQ2_XS',
  18: 'IQ3_XXS',
  19: 'IQ1_S',
  20: 'IQ4_NL',
  21: 'IQ3_S',
  22: 'IQ2_S',
  23: 'IQ4_XS',
  24: 'I8',
  25: 'I16',
  26: 'I32',
  27: 'I64',
  28: 'F64',
  29: 'IQ1_M',
  30: 'BF16',
  34: 'TQ1_0',
  35: 'TQ2_0',
  39: 'MXFP4',
};

/** Every {@link GgmlType}. */
export const GGML_TYPES: readonly GgmlType[] = [
  'F32',
  'F16',
  'BF16',
  'Q4_0',
  'Q4_1',
  'Q5_0',
  'Q5_1',
  'Q8_0',
  'Q2_K',
  'Q3_K',
  'Q4_K',
  'Q5_K',
  'Q6_K',
];

/** Weights and bytes of one block of `type`. */
export function ggmlBlock(type: GgmlType): GgmlBlock {
  return BLOCKS[type];
}

/** Whether `name` is a block type that this package reads. */
export function isGgmlType(name: string): name is GgmlType {
  return Object.hasOwn(BLOCKS, name);
}

/**
 * Name of the type that a GGUF file stores as `id`, or `type <id>` where the number is unknown.
 */
export function ggmlTypeName(id: number): string {
  return NAMES[id] ?? `type ${id}`;
}

/** The number that a GGUF file stores for `type`. */
export function ggmlTypeId(type: GgmlType): number {
  return Number(Object.keys(NAMES).find((id) => NAMES[Number(id)] === type));
}

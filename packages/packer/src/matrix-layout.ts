/**
 * Weight matrices as words: which formats there are and where element (row, column) lies. Pure.
 *
 * A matrix is [rows, columns], row-major, and every row starts on a word of 32 bits. Structure of
 * arrays: codes and scales are two buffers, so that both are read in aligned words.
 *
 *     codes    row 0: word 0, word 1, ...   row 1: ...
 *     affine4  word = 8 codes, element k in word k / 8 at bit 4 * (k % 8)
 *     affine8  word = 4 codes, element k in word k / 4 at bit 8 * (k % 4)
 *     affine2  word = 16 codes, element k in word k / 16 at bit 4 * (k % 8) + 2 * (k / 8 % 2)
 *     affine3  the upper two bits of each code as affine2; the lowest ones among the scales
 *     f16/bf16 word = 2 elements, the even one in the low half
 *     scales   one word per group of `groupSize` columns: f16 scale (low half), f16 minimum (high)
 *     compact  one word per two groups, the first in the low half; an odd last group has its own
 *     affine3  each word of factors, or the two of two groups of 16, and then a word for every 32
 *              columns of theirs: the lowest bit of code k at bit 4 * (k % 8) + k / 8 % 4. Exactly
 *              3 bits
 *
 * The value of an affine code is `scale * code + minimum` with an unsigned code. This holds every
 * uniform scheme: a symmetric one has `minimum = -zeroPoint * scale`, rounded to f16; a float zero
 * point is a minimum that is no multiple of the scale. Scale and minimum are a pair of f16, 32 bits
 * a group, or compact, 16 bits a group (factor-codec.ts): at the same true bits a group of compact
 * factors has half the weights, which for most models is the smaller error.
 *
 * The order of 2- and 3-bit codes lets a kernel spread eight of them into the nibbles of a word by
 * one shift and one mask, and from there on read them like 4-bit codes. The `codes` of an affine3
 * matrix are those of an affine2 matrix of twice the scale. Its lowest bits lie beside the scales
 * because both are then one load: a load costs the same for one word or two.
 *
 * Rejected: blocks that mix scale and codes (18 or 34 bytes, as in GGUF files). They save nothing
 * and make every other load unaligned.
 */
import { assertArgument, fail } from '@vramkit/core';

/** How the elements of a weight matrix are stored. */
export type MatrixFormat = 'f32' | 'f16' | 'bf16' | 'affine2' | 'affine3' | 'affine4' | 'affine8';

/** The formats that have codes, scales and groups. */
export type AffineMatrixFormat = 'affine2' | 'affine3' | 'affine4' | 'affine8';

/** Bits of one code. */
export type CodeBits = 2 | 3 | 4 | 8;

/** Every {@link MatrixFormat}. */
export const MATRIX_FORMATS: readonly MatrixFormat[] = [
  'f32',
  'f16',
  'bf16',
  'affine2',
  'affine3',
  'affine4',
  'affine8',
];

/**
 * How scale and minimum of a group are stored: two f16, 32 bits; or compact, a scale of 5
 * significant bits and a zero point of 7 bits, 16 bits in all. See factor-codec.ts.
 */
export type FactorFormat = 'f16' | 'compact';

/** Columns that share one scale and minimum: 16, 32, 64, 128, or all columns of a row. */
export type GroupSize = number;

/** Shape and storage of a weight matrix. */
export interface MatrixShape {
  /** Output features: each row gives one element of the product. */
  readonly rows: number;
  /**
   * Input features. A multiple of `groupSize` for affine formats, and of 32 for 2 and 3 bits; of 4
   * for dense ones.
   */
  readonly columns: number;
  readonly format: MatrixFormat;
  /** Columns that share a scale; affine formats only. Default: 32. */
  readonly groupSize?: GroupSize | undefined;
  /** How scales and minimums are stored; affine formats only. Default: 'f16'. */
  readonly factors?: FactorFormat | undefined;
}

/** Words of one row; see the head of this file. */
export interface MatrixLayout {
  readonly rows: number;
  readonly columns: number;
  readonly format: MatrixFormat;
  /** Columns that share a scale, or 0 for dense formats. */
  readonly groupSize: GroupSize;
  /** How scales and minimums are stored; 'f16' for dense formats, which have none. */
  readonly factors: FactorFormat;
  /** Bits of one code or element. */
  readonly bits: CodeBits | 16 | 32;
  /** 32-bit words of codes or dense elements in a row; without the lowest bits of affine3. */
  readonly codeWordsPerRow: number;
  /** Words of scales, and of lowest bits, in a row; 0 for dense formats. */
  readonly scaleWordsPerRow: number;
}

const BITS = {
  f32: 32,
  f16: 16,
  bf16: 16,
  affine2: 2,
  affine3: 3,
  affine4: 4,
  affine8: 8,
} as const;
const GROUP_SIZES: readonly number[] = [16, 32, 64, 128];

/** The format whose codes have `bits` bits. */
export function affineMatrixFormat(bits: CodeBits): AffineMatrixFormat {
  return `affine${bits}`;
}

/** Whether the format has scales and groups. */
export function isAffine(format: MatrixFormat): format is AffineMatrixFormat {
  return format.startsWith('affine');
}

/**
 * Checks a shape and gives its layout.
 * @throws VramError `invalid-argument` where the format does not allow the shape.
 */
export function matrixLayout(shape: MatrixShape): MatrixLayout {
  const { rows, columns, format } = shape;
  const context = { rows, columns, format };
  if (!(format in BITS)) fail('invalid-argument', `unknown matrix format '${String(format)}'`);
  assertArgument(
    Number.isSafeInteger(rows) && rows > 0 && Number.isSafeInteger(columns) && columns > 0,
    `a matrix has at least one row and column, got ${rows} x ${columns}`,
    context,
  );
  const groupSize = isAffine(format) ? (shape.groupSize ?? 32) : 0;
  assertArgument(
    isAffine(format)
      ? GROUP_SIZES.includes(groupSize) || (groupSize === columns && columns % 32 === 0)
      : shape.groupSize === undefined,
    `format ${format} has no groups of ${shape.groupSize}`,
    { ...context, groupSize },
  );
  const { factors = 'f16' } = shape;
  assertArgument(
    factors === 'f16' || (factors === 'compact' && isAffine(format)),
    `format ${format} has no factors '${factors}'`,
    context,
  );
  const bits = BITS[format];
  const step = groupSize === 0 ? 4 : bits < 4 ? Math.max(32, groupSize) : groupSize;
  assertArgument(columns % step === 0, `${format} needs columns in multiples of ${step}`, context);
  const groups = groupSize === 0 ? 0 : columns / groupSize;
  const factorWords = factors === 'compact' ? Math.ceil(groups / 2) : groups;
  const codeWordsPerRow = (columns * (bits === 3 ? 2 : bits)) / 32;
  // Kernels address elements with u32, and a matrix is addressed as a whole by indexed products.
  assertArgument(rows * columns <= 2 ** 42 && rows <= 2 ** 31, 'the matrix is too large', context);
  return {
    rows,
    columns,
    format,
    groupSize,
    factors,
    bits,
    codeWordsPerRow,
    scaleWordsPerRow: factorWords + (bits === 3 ? columns / 32 : 0),
  };
}

/** Bits of storage for each weight: codes, scales and minimums. */
export function bitsPerWeight(layout: MatrixLayout): number {
  return (32 * (layout.codeWordsPerRow + layout.scaleWordsPerRow)) / layout.columns;
}

/** Bytes of all rows: codes and scales, without padding between segments. */
export function matrixBytes(layout: MatrixLayout): number {
  return layout.rows * (layout.codeWordsPerRow + layout.scaleWordsPerRow) * 4;
}

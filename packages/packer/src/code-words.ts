/**
 * Codes and scales in words and back, in the order that the head of `matrix-layout.ts` states.
 * Pure.
 *
 * Rows are whole words in every format, so rows lie one after the other in all arrays here.
 */
import { assertArgument } from '@vramkit/core';
import type { CodeBits, MatrixLayout } from './matrix-layout.js';

/** Words of an affine matrix, or of some of its rows. */
export interface AffineWords {
  /** `codeWordsPerRow` words for each row. */
  readonly codes: Uint32Array;
  /** `scaleWordsPerRow` words for each row. */
  readonly scales: Uint32Array;
}

/** Codes and factors of whole rows. */
export interface AffineCodes {
  /** One byte each, [rows, columns]. */
  readonly codes: Uint8Array;
  /**
   * One word each, as the layout's `factors` are stored, [rows, columns / groupSize]: a pair of
   * f16, scale in the low half and minimum in the high, or 16 bits in the low half.
   */
  readonly factors: Uint32Array;
}

/** Columns whose factors share a word. */
const wordColumns = ({ groupSize, factors }: MatrixLayout): number =>
  factors === 'compact' ? 2 * groupSize : groupSize;

/**
 * Columns of a unit: some words of factors and, with 3 bits, then the lowest bits of its columns.
 */
const unitColumns = (layout: MatrixLayout): number => Math.max(32, wordColumns(layout));

/** Word of `scales` that holds the factors of the group of `column`, from the row's first on. */
function factorWord(layout: MatrixLayout, column: number): number {
  const word = Math.floor(column / wordColumns(layout));
  if (layout.bits !== 3) return word;
  const unit = unitColumns(layout);
  return word + (unit / 32) * Math.floor(column / unit);
}

/** Word of `scales` that holds the lowest bits of the 32 columns around `column`. */
function lowestWord(layout: MatrixLayout, column: number): number {
  const unit = unitColumns(layout);
  const factorWords = unit / wordColumns(layout);
  return factorWords * (Math.floor(column / unit) + 1) + (column >> 5);
}

/** Bits of a word below the factors of `column`. */
function factorShift({ groupSize, factors }: MatrixLayout, column: number): number {
  return factors === 'compact' ? 16 * (Math.floor(column / groupSize) & 1) : 0;
}

/** The factors of element (row, column), as `AffineCodes` has them; `factorCodec` reads them. */
export function factorsAt(
  layout: MatrixLayout,
  { scales }: Pick<AffineWords, 'scales'>,
  row: number,
  column: number,
): number {
  const word = scales[row * layout.scaleWordsPerRow + factorWord(layout, column)] ?? 0;
  if (layout.factors === 'f16') return word;
  return (word >>> factorShift(layout, column)) & 0xffff;
}

/** The code of element (row, column). */
export function codeAt(
  layout: MatrixLayout,
  words: AffineWords,
  row: number,
  column: number,
): number {
  const { bits, codeWordsPerRow, scaleWordsPerRow } = layout;
  const start = row * codeWordsPerRow;
  if (bits > 3) {
    const bit = column * bits;
    return ((words.codes[start + Math.floor(bit / 32)] ?? 0) >>> (bit % 32)) & (2 ** bits - 1);
  }
  const shift = 4 * (column & 7);
  const eight = column >> 3;
  const upper = ((words.codes[start + (column >> 4)] ?? 0) >>> (shift + 2 * (eight & 1))) & 3;
  if (bits === 2) return upper;
  const lowest = words.scales[row * scaleWordsPerRow + lowestWord(layout, column)] ?? 0;
  return 2 * upper + ((lowest >>> (shift + (eight & 3))) & 1);
}

/**
 * Packs whole rows.
 * @throws VramError `invalid-argument` where codes or factors are not whole rows.
 */
export function packRows(layout: MatrixLayout, rows: AffineCodes): AffineWords {
  const { bits, columns, groupSize } = layout;
  const count = rows.codes.length / columns;
  assertArgument(
    Number.isInteger(count) && rows.factors.length * groupSize === rows.codes.length,
    `${rows.codes.length} codes and ${rows.factors.length} factors are not rows of ${columns}`,
    { columns, groupSize },
  );
  assertArgument(
    layout.factors === 'f16' || rows.factors.every((word) => word <= 0xffff),
    'compact factors have 16 bits',
  );
  const codes = new Uint32Array(count * layout.codeWordsPerRow);
  if (bits > 3) packWide(bits, rows.codes, codes);
  else packUpper(bits - 2, rows.codes, codes);
  const isPlain = bits !== 3 && layout.factors === 'f16';
  return { codes, scales: isPlain ? rows.factors : packScales(layout, rows) };
}

function packWide(bits: CodeBits | 16 | 32, codes: Uint8Array, words: Uint32Array): void {
  const perWord = 32 / bits;
  for (let w = 0, at = 0; w < words.length; w++) {
    let word = 0;
    for (let i = 0; i < perWord; i++) word |= (codes[at++] ?? 0) << (bits * i);
    words[w] = word;
  }
}

/** Two bits of each code, above the `drop` lowest. */
function packUpper(drop: number, codes: Uint8Array, words: Uint32Array): void {
  for (let w = 0, at = 0; w < words.length; w++, at += 16) {
    let word = 0;
    for (let i = 0; i < 8; i++) {
      const low = (codes[at + i] ?? 0) >> drop;
      const high = (codes[at + 8 + i] ?? 0) >> drop;
      word |= (low | (high << 2)) << (4 * i);
    }
    words[w] = word;
  }
}

/** Factors in their places, with the lowest bits of 3-bit codes among them. */
function packScales(layout: MatrixLayout, { codes, factors }: AffineCodes): Uint32Array {
  const { bits, columns, groupSize, scaleWordsPerRow } = layout;
  const count = codes.length / columns;
  const words = new Uint32Array(count * scaleWordsPerRow);
  for (let row = 0, group = 0; row < count; row++) {
    const start = row * scaleWordsPerRow;
    for (let column = 0; column < columns; column += groupSize) {
      const at = start + factorWord(layout, column);
      words[at] = (words[at] ?? 0) | ((factors[group++] ?? 0) << factorShift(layout, column));
    }
    for (let column = 0; bits === 3 && column < columns; column += 32) {
      let word = 0;
      for (let i = 0; i < 32; i++) {
        word |= ((codes[row * columns + column + i] ?? 0) & 1) << (4 * (i & 7) + (i >> 3));
      }
      words[start + lowestWord(layout, column)] = word;
    }
  }
  return words;
}

/** Codes and factors of whole rows: the inverse of {@link packRows}. */
export function unpackRows(layout: MatrixLayout, words: AffineWords): AffineCodes {
  const { codeWordsPerRow, columns, groupSize } = layout;
  const rows = words.codes.length / codeWordsPerRow;
  const codes = new Uint8Array(rows * columns);
  const factors = new Uint32Array((rows * columns) / groupSize);
  for (let row = 0, at = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, at++) {
      codes[at] = codeAt(layout, words, row, column);
      if (column % groupSize === 0) factors[at / groupSize] = factorsAt(layout, words, row, column);
    }
  }
  return { codes, factors };
}

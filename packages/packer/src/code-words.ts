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
  /** Pairs of f16, scale in the low half and minimum in the high, [rows, columns / groupSize]. */
  readonly factors: Uint32Array;
}

/** Word of `scales` that holds the factors of the group of `column`, from the row's first on. */
function factorWord({ bits, groupSize }: MatrixLayout, column: number): number {
  const group = Math.floor(column / groupSize);
  if (bits !== 3) return group;
  return groupSize === 16 ? 3 * (group >> 1) + (group & 1) : group * (1 + groupSize / 32);
}

/** Word of `scales` that holds the lowest bits of the 32 columns around `column`. */
function lowestWord({ groupSize }: MatrixLayout, column: number): number {
  const step = column >> 5;
  return groupSize === 16 ? 3 * step + 2 : step + 1 + Math.floor(column / groupSize);
}

/** The factors of element (row, column): f16 scale in the low half, f16 minimum in the high. */
export function factorsAt(
  layout: MatrixLayout,
  { scales }: Pick<AffineWords, 'scales'>,
  row: number,
  column: number,
): number {
  return scales[row * layout.scaleWordsPerRow + factorWord(layout, column)] ?? 0;
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
  const codes = new Uint32Array(count * layout.codeWordsPerRow);
  if (bits > 3) packWide(bits, rows.codes, codes);
  else packUpper(bits - 2, rows.codes, codes);
  return { codes, scales: bits === 3 ? packLowest(layout, rows) : rows.factors };
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

/** Factors with the lowest bits of 3-bit codes among them. */
function packLowest(layout: MatrixLayout, { codes, factors }: AffineCodes): Uint32Array {
  const { columns, groupSize, scaleWordsPerRow } = layout;
  const count = codes.length / columns;
  const words = new Uint32Array(count * scaleWordsPerRow);
  for (let row = 0, group = 0; row < count; row++) {
    const start = row * scaleWordsPerRow;
    for (let column = 0; column < columns; column += groupSize) {
      words[start + factorWord(layout, column)] = factors[group++] ?? 0;
    }
    for (let column = 0; column < columns; column += 32) {
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

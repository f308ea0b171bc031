/**
 * Codes in words and back, in the order that the head of `matrix-layout.ts` states. Pure.
 *
 * Every format keeps 32 consecutive codes in whole words (`bits` of them), so rows and groups of codes
 * are packed 32 at a time, or 16 and fewer where 4 and 8 bits allow it.
 */
import { assertArgument } from '@vramkit/core';
import type { CodeBits, MatrixLayout } from './matrix-layout.js';

/** Which word of a row holds a 2-bit field, and at which bit; 3-bit codes have a third word per 32. */
function fieldWord(bits: 2 | 3, column: number): { readonly word: number; readonly shift: number } {
  const word = bits === 2 ? column >> 4 : 3 * (column >> 5) + ((column >> 4) & 1);
  return { word, shift: 4 * (column & 7) + 2 * ((column >> 3) & 1) };
}

/** The code of element (row, column) of an affine matrix. */
export function codeAt(
  layout: MatrixLayout,
  codes: Uint32Array,
  row: number,
  column: number,
): number {
  const { bits, codeWordsPerRow } = layout;
  const start = row * codeWordsPerRow;
  if (bits === 2 || bits === 3) {
    const { word, shift } = fieldWord(bits, column);
    const field = ((codes[start + word] ?? 0) >>> shift) & 3;
    if (bits === 2) return field;
    const lowest = codes[start + 3 * (column >> 5) + 2] ?? 0;
    return 2 * field + ((lowest >>> (4 * (column & 7) + ((column >> 3) & 3))) & 1);
  }
  const bit = column * bits;
  return ((codes[start + Math.floor(bit / 32)] ?? 0) >>> (bit % 32)) & (2 ** bits - 1);
}

/**
 * Packs codes, one byte each, into words; rows lie one after the other in both.
 * @throws VramError `invalid-argument` where the codes do not fill whole words.
 */
export function packCodes(bits: CodeBits, codes: Uint8Array): Uint32Array {
  const step = bits < 4 ? 32 : 32 / bits;
  assertArgument(codes.length % step === 0, `${codes.length} codes are not whole words`, { bits });
  const words = new Uint32Array((codes.length * bits) / 32);
  if (bits >= 4) packWide(bits, codes, words);
  else packNarrow(bits, codes, words);
  return words;
}

function packWide(bits: number, codes: Uint8Array, words: Uint32Array): void {
  const perWord = 32 / bits;
  for (let w = 0, at = 0; w < words.length; w++) {
    let word = 0;
    for (let i = 0; i < perWord; i++) word |= (codes[at++] ?? 0) << (bits * i);
    words[w] = word;
  }
}

function packNarrow(bits: number, codes: Uint8Array, words: Uint32Array): void {
  const drop = bits - 2;
  for (let at = 0, to = 0; at < codes.length; at += 32, to += bits) {
    for (let half = 0; half < 2; half++) {
      let word = 0;
      for (let i = 0; i < 8; i++) {
        const low = (codes[at + 16 * half + i] ?? 0) >> drop;
        const high = (codes[at + 16 * half + 8 + i] ?? 0) >> drop;
        word |= (low | (high << 2)) << (4 * i);
      }
      words[to + half] = word;
    }
    if (bits === 2) continue;
    let lowest = 0;
    for (let i = 0; i < 32; i++) {
      lowest |= ((codes[at + i] ?? 0) & 1) << (4 * (i & 7) + (i >> 3));
    }
    words[to + 2] = lowest;
  }
}

/** The codes of whole rows, one byte each: the inverse of {@link packCodes}. */
export function unpackCodes(layout: MatrixLayout, words: Uint32Array): Uint8Array {
  const { codeWordsPerRow, columns } = layout;
  const rows = words.length / codeWordsPerRow;
  const codes = new Uint8Array(rows * columns);
  for (let row = 0, at = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      codes[at++] = codeAt(layout, words, row, column);
    }
  }
  return codes;
}

/**
 * Packed matrices as blocks of GGUF: Q4_0, Q4_1 and Q8_0, the types whose values are exactly ours.
 *
 * A compact pair has an f16 scale, and a minimum of 12 significant bits at most, of which f16 has
 * 11: most matrices of compact factors have a group that Q4_1 does not hold.
 */
import { fail } from '@vramkit/core';
import { unpackRows } from '../code-words.js';
import { factorCodec } from '../factor-codec.js';
import type { HostMatrix } from '../kernels/host-matrix.js';
import type { CodeBits } from '../matrix-layout.js';
import { groupWord, minimumOf, scaleOf } from '../quantizers/group-codes.js';

/** Block types that {@link toGgmlBlocks} writes. */
export type WritableBlock = 'Q4_0' | 'Q4_1' | 'Q8_0';

/** Whether all groups are centred: minimum -middle times the scale. */
function isCentred(factors: Uint32Array, middle: number): boolean {
  return factors.every((word) => {
    const scale = scaleOf(word);
    return word === 0 || (scale !== 0 && groupWord(scale, -middle * scale) === word);
  });
}

/**
 * The factors of a matrix as pairs of f16.
 * @throws VramError `unsupported` where a compact pair is none, with the first such row and column.
 */
function f16Factors({ layout }: HostMatrix, factors: Uint32Array, name: string): Uint32Array {
  if (layout.factors === 'f16') return factors;
  const { bits, columns, groupSize } = layout;
  // An affine format has the bits of a code.
  const codec = factorCodec('compact', bits as CodeBits);
  return factors.map((word, group) => {
    const minimum = codec.minimumOf(word);
    const pair = groupWord(codec.scaleOf(word), minimum);
    if (minimumOf(pair) === minimum) return pair;
    const row = Math.floor((group * groupSize) / columns);
    const column = (group * groupSize) % columns;
    const place = `row ${row} column ${column} of '${name}'`;
    return fail('unsupported', `the compact factors at ${place} are no pair of f16`, {
      tensor: name,
      row,
      column,
    });
  });
}

/**
 * The block type that holds a matrix exactly.
 * @param name Of the tensor, for errors.
 * @throws VramError `unsupported` where GGUF has none: 2 and 3 bits, groups other than 32, 8 bits
 * that are not centred, compact factors that are no pair of f16.
 */
export function ggmlBlockFor(matrix: HostMatrix, name: string): WritableBlock {
  const { bits, groupSize, format } = matrix.layout;
  const factors = f16Factors(matrix, unpackRows(matrix.layout, matrix).factors, name);
  if (groupSize === 32 && bits === 4) return isCentred(factors, 8) ? 'Q4_0' : 'Q4_1';
  if (groupSize === 32 && bits === 8 && isCentred(factors, 128)) return 'Q8_0';
  return fail('unsupported', `GGUF has no block type for '${name}': ${format} in ${groupSize}s`, {
    tensor: name,
    format,
    groupSize,
  });
}

/**
 * The blocks of a matrix, row by row.
 * @param name Of the tensor, for errors.
 * @throws VramError `unsupported` where GGUF has none: 2 and 3 bits, groups other than 32, 8 bits
 * that are not centred, compact factors that are no pair of f16.
 */
export function toGgmlBlocks(
  matrix: HostMatrix,
  name: string,
): { readonly type: WritableBlock; readonly bytes: Uint8Array<ArrayBuffer> } {
  const type = ggmlBlockFor(matrix, name);
  const { codes, factors: stored } = unpackRows(matrix.layout, matrix);
  const factors = f16Factors(matrix, stored, name);
  const blockBytes = { Q4_0: 18, Q4_1: 20, Q8_0: 34 }[type];
  const bytes = new Uint8Array(factors.length * blockBytes);
  const view = new DataView(bytes.buffer);
  factors.forEach((word, block) => {
    const at = block * blockBytes;
    const from = block * 32;
    view.setUint16(at, word & 0xffff, true);
    if (type === 'Q8_0') {
      for (let i = 0; i < 32; i++) view.setInt8(at + 2 + i, (codes[from + i] ?? 0) - 128);
      return;
    }
    if (type === 'Q4_1') view.setUint16(at + 2, word >>> 16, true);
    const start = at + blockBytes - 16;
    for (let i = 0; i < 16; i++) {
      bytes[start + i] = (codes[from + i] ?? 0) | ((codes[from + 16 + i] ?? 0) << 4);
    }
  });
  return { type, bytes };
}

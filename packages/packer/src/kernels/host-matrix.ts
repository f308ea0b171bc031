/**
 * A weight matrix in host memory, and the value of each of its elements in f64.
 *
 * This is the definition of the storage formats: kernels and CPU twins agree with it.
 */
import { bf16ToF32, f16ToF32 } from '@vramkit/core';
import { codeAt, factorsAt } from '../code-words.js';
import { factorCodec } from '../factor-codec.js';
import {
  isAffine,
  matrixLayout,
  type CodeBits,
  type MatrixLayout,
  type MatrixShape,
} from '../matrix-layout.js';

/** The words of a matrix; see `MatrixLayout`. */
export interface HostMatrix {
  readonly layout: MatrixLayout;
  /** Codes or dense elements, `rows * codeWordsPerRow` words. */
  readonly codes: Uint32Array;
  /** Scales, `rows * scaleWordsPerRow` words; empty for dense formats. */
  readonly scales: Uint32Array;
}

/**
 * A matrix over words that the caller filled.
 * @throws VramError `invalid-argument` for a shape that the format does not allow.
 */
export function hostMatrix(
  shape: MatrixShape,
  words: { readonly codes: Uint32Array; readonly scales?: Uint32Array },
): HostMatrix {
  const layout = matrixLayout(shape);
  return { layout, codes: words.codes, scales: words.scales ?? new Uint32Array() };
}

/** The value of element (row, column). */
export function elementAt(matrix: HostMatrix, row: number, column: number): number {
  const { format, bits, codeWordsPerRow } = matrix.layout;
  if (isAffine(format)) {
    const word = factorsAt(matrix.layout, matrix, row, column);
    const code = codeAt(matrix.layout, matrix, row, column);
    // An affine format has the bits of a code.
    const codec = factorCodec(matrix.layout.factors, bits as CodeBits);
    return codec.scaleOf(word) * code + codec.minimumOf(word);
  }
  const bit = column * bits;
  const word = matrix.codes[row * codeWordsPerRow + Math.floor(bit / 32)] ?? 0;
  const raw = bits === 32 ? word : (word >>> (bit % 32)) & 0xffff;
  switch (format) {
    case 'f32':
      return new Float32Array(Uint32Array.of(raw).buffer)[0] ?? 0;
    case 'f16':
      return f16ToF32(raw);
    case 'bf16':
      return bf16ToF32(raw);
  }
}

/** All values of a row. */
export function rowValues(matrix: HostMatrix, row: number): Float64Array {
  return Float64Array.from({ length: matrix.layout.columns }, (_, k) => elementAt(matrix, row, k));
}

/** All values, [rows, columns], each rounded once to f32. */
export function matrixValues(matrix: HostMatrix): Float32Array<ArrayBuffer> {
  const { rows, columns } = matrix.layout;
  const values = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) values.set(rowValues(matrix, row), row * columns);
  return values;
}

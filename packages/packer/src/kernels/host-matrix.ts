/**
 * A weight matrix in host memory, and the value of each of its elements in f64.
 *
 * This is the definition of the storage formats: kernels and CPU twins agree with it.
 */
import { bf16ToF32, f16ToF32 } from '@vramkit/core';
import { matrixLayout, type MatrixLayout, type MatrixShape } from '../matrix-layout.js';

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
  const { format, bits, groupSize, codeWordsPerRow, scaleWordsPerRow } = matrix.layout;
  const bit = column * bits;
  const word = matrix.codes[row * codeWordsPerRow + Math.floor(bit / 32)] ?? 0;
  const raw = bits === 32 ? word : (word >>> (bit % 32)) & (2 ** bits - 1);
  switch (format) {
    case 'f32':
      return new Float32Array(Uint32Array.of(raw).buffer)[0] ?? 0;
    case 'f16':
      return f16ToF32(raw);
    case 'bf16':
      return bf16ToF32(raw);
    case 'affine4':
    case 'affine8': {
      const group = matrix.scales[row * scaleWordsPerRow + Math.floor(column / groupSize)] ?? 0;
      return f16ToF32(group & 0xffff) * raw + f16ToF32(group >>> 16);
    }
  }
}

/** All values of a row. */
export function rowValues(matrix: HostMatrix, row: number): Float64Array {
  return Float64Array.from({ length: matrix.layout.columns }, (_, k) => elementAt(matrix, row, k));
}

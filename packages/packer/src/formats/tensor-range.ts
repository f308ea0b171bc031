/**
 * Where a tensor lies in a file, and reading some of its rows.
 *
 * Both formats store a tensor as rows one after the other without gaps; a row is the last,
 * fastest dimension. Tensors with one dimension or none are one row.
 */
import { fail } from '@vramkit/core';
import type { ByteSource } from './byte-source.js';

/** A tensor of a file: its name, element type, shape and bytes. */
export interface TensorRange<Type extends string = string> {
  /** Name in the file. */
  readonly name: string;
  /** Element or block type, as the format spells it. */
  readonly type: Type;
  /** Extents, slowest first; `[rows, columns]` for a matrix. */
  readonly shape: readonly number[];
  /** Position of the first byte in the file. */
  readonly offset: number;
  /** Bytes of the whole tensor. */
  readonly sizeBytes: number;
  /** Product of all extents but the last; 1 for a vector or a scalar. */
  readonly rows: number;
  /** Bytes of one row. */
  readonly rowBytes: number;
}

/**
 * Reads `rowCount` rows from `rowStart`.
 * @throws VramError `invalid-argument` where the rows are not in the tensor; what `source.read`
 * throws.
 */
export function readTensorRows(
  source: ByteSource,
  tensor: TensorRange,
  rowStart: number,
  rowCount: number,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const valid = Number.isInteger(rowStart) && Number.isInteger(rowCount);
  if (!valid || rowStart < 0 || rowCount < 0 || rowStart + rowCount > tensor.rows) {
    fail(
      'invalid-argument',
      `rows [${rowStart}, +${rowCount}) are outside of ${tensor.rows} rows of '${tensor.name}'`,
      { tensor: tensor.name, rowStart, rowCount, rows: tensor.rows },
    );
  }
  const { offset, rowBytes } = tensor;
  return source.read(offset + rowStart * rowBytes, rowCount * rowBytes, signal);
}

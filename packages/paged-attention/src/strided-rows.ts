/**
 * Rows of f32 activations in device memory: how queries, keys, values and outputs are handed in.
 *
 * They need not be tensors of their own: q, k and v may be parts of the rows of one fused
 * projection, each with the same stride and another offset. Kernels take offset and stride as
 * uniforms, so that neither has to meet the device's binding alignment.
 */
import {
  assertArgument,
  checkInteger,
  fail,
  subrange,
  type BufferRange,
  type DeviceLimits,
} from '@vramkit/core';

/** f32 rows within a buffer range; row i starts at element `offset + i * rowStride`. */
export interface StridedRows {
  readonly range: BufferRange;
  /** Elements between rows, a multiple of 4. */
  readonly rowStride: number;
  /** Elements before the first row, a multiple of 4. */
  readonly offset: number;
}

/**
 * Checks that `count` rows of `width` elements lie within their range.
 * @throws VramError `invalid-argument` naming the rows, also for a tensor of another type.
 */
export function checkRows(name: string, rows: StridedRows, count: number, width: number): void {
  const { offset, rowStride, range } = rows;
  checkInteger(`offset of ${name}`, offset);
  checkInteger(`rowStride of ${name}`, rowStride, width);
  assertArgument(
    offset % 4 === 0 && rowStride % 4 === 0,
    `${name}: offset ${offset} and rowStride ${rowStride} must be multiples of 4`,
    { name, offset, rowStride },
  );
  const { dtype = 'f32' } = range;
  assertArgument(dtype === 'f32', `${name}: a tensor of ${dtype}, not of f32`, { name, dtype });
  const elements = count === 0 ? 0 : offset + (count - 1) * rowStride + width;
  assertArgument(
    elements * 4 <= range.sizeBytes,
    `${name}: ${count} rows of ${width} need ${elements} elements, ` +
      `the range has ${range.sizeBytes / 4}`,
    { name, count, width, elements, rangeBytes: range.sizeBytes },
  );
}

/**
 * Checks that a range holds `count` u32 or f32.
 * @throws VramError `invalid-argument` naming the range, also for a tensor of another type.
 */
export function checkWords(
  name: string,
  range: BufferRange,
  count: number,
  dtype: 'u32' | 'f32' = 'u32',
): void {
  assertArgument(
    range.dtype === undefined || range.dtype === dtype,
    `${name}: a tensor of ${range.dtype}, not of ${dtype}`,
    { name, dtype: range.dtype },
  );
  assertArgument(
    count * 4 <= range.sizeBytes,
    `${name}: needs ${count} entries, the range has ${range.sizeBytes / 4}`,
    { name, count, rangeBytes: range.sizeBytes },
  );
}

/**
 * How many of `count` rows one dispatch can bind: all where every operand fits a binding as a
 * whole, so that every step finds the same bind group again; else what the longest rows leave room
 * for.
 * @throws VramError `unsupported` where one row exceeds a binding.
 */
export function rowsPerBinding(
  limits: Pick<DeviceLimits, 'maxStorageBufferBindingSize' | 'minStorageBufferOffsetAlignment'>,
  operands: readonly StridedRows[],
  count: number,
): number {
  const { maxStorageBufferBindingSize: limitBytes } = limits;
  let fit = count;
  for (const { range, rowStride } of operands) {
    if (range.sizeBytes <= limitBytes) continue;
    // The window starts at an aligned offset, up to one alignment before its first row.
    const room = limitBytes - limits.minStorageBufferOffsetAlignment;
    const rows = Math.floor(room / (rowStride * 4));
    if (rows === 0) {
      fail('unsupported', `a row of ${rowStride} elements exceeds a binding of ${limitBytes} B`, {
        rowStride,
        limitBytes,
      });
    }
    fit = Math.min(fit, rows);
  }
  return fit;
}

/** `count` rows from row `first` on, as a range that can be bound; see {@link rowsPerBinding}. */
export function bindableRows(
  limits: Pick<DeviceLimits, 'maxStorageBufferBindingSize' | 'minStorageBufferOffsetAlignment'>,
  rows: StridedRows,
  first: number,
  count: number,
): StridedRows {
  const { range, rowStride } = rows;
  const offset = rows.offset + first * rowStride;
  if (range.sizeBytes <= limits.maxStorageBufferBindingSize) return { range, rowStride, offset };
  const alignment = limits.minStorageBufferOffsetAlignment;
  const startBytes = Math.floor((offset * 4) / alignment) * alignment;
  const endBytes = Math.min(range.sizeBytes, (offset + count * rowStride) * 4);
  return {
    range: subrange(range, startBytes, endBytes - startBytes),
    rowStride,
    offset: offset - startBytes / 4,
  };
}

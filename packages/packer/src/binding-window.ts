/**
 * Binds the part of a large range that one dispatch needs.
 *
 * A range within the binding limit is bound as a whole, so that every step finds the same bind
 * group again; a larger one is bound from the last aligned offset before the elements needed.
 */
import { assertArgument, fail, type BufferRange, type VramDevice } from '@vramkit/core';

/** A bindable range, and where the elements asked for start in it. */
export interface BindingWindow {
  readonly range: BufferRange;
  /** First element asked for, in elements of four bytes from the start of `range`. */
  readonly base: number;
}

/**
 * The window over elements `[first, first + count)` of `range`, in elements of four bytes.
 * @throws VramError `invalid-argument` where the elements leave the range; `unsupported` where they
 * alone exceed the binding limit.
 */
export function bindingWindow(
  device: VramDevice,
  range: BufferRange,
  first: number,
  count: number,
): BindingWindow {
  assertArgument(
    first >= 0 && (first + count) * 4 <= range.sizeBytes,
    `elements ${first} + ${count} leave a range of ${range.sizeBytes} B`,
    { first, count, rangeBytes: range.sizeBytes },
  );
  const { maxStorageBufferBindingSize: limit, minStorageBufferOffsetAlignment } = device.limits;
  if (range.sizeBytes <= limit) return { range, base: first };
  const alignment = Math.max(16, minStorageBufferOffsetAlignment);
  const offset = Math.floor((first * 4) / alignment) * alignment;
  const sizeBytes = (first + count) * 4 - offset;
  if (sizeBytes > limit) {
    fail('unsupported', `${sizeBytes} B of one operand exceed the binding limit of ${limit} B`, {
      sizeBytes,
      limit,
    });
  }
  const window = { buffer: range.buffer, offsetBytes: range.offsetBytes + offset, sizeBytes };
  return { range: window, base: first - offset / 4 };
}

/**
 * How many rows fit one dispatch: all where every operand is bound as a whole, else as many as the
 * binding limit holds of the operand with the longest rows. At least one.
 */
export function rowsPerDispatch(
  device: VramDevice,
  rows: number,
  operands: readonly { readonly range: BufferRange; readonly rowElements: number }[],
): number {
  const { maxStorageBufferBindingSize: limit, minStorageBufferOffsetAlignment } = device.limits;
  let fit = rows;
  for (const { range, rowElements } of operands) {
    if (range.sizeBytes <= limit) continue;
    const room = limit - Math.max(16, minStorageBufferOffsetAlignment);
    fit = Math.min(fit, Math.max(1, Math.floor(room / (rowElements * 4))));
  }
  return fit;
}

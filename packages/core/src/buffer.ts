/**
 * A range of a `GPUBuffer`: what kernels bind, transfers move and tensors view.
 *
 * A range says nothing of ownership. Whoever allocated it gives it back; a range over a buffer that
 * somebody else made (tfjs, ONNX Runtime, a page) is used and never destroyed.
 */
import { assertArgument } from './assert.js';
import type { DType } from './dtype.js';

/** A contiguous part of a buffer. Both numbers are bytes and multiples of four. */
export interface BufferRange {
  readonly buffer: GPUBuffer;
  /** Start within the buffer, bytes. Bindings need a multiple of the device's alignment (256). */
  readonly offsetBytes: number;
  /** Extent, bytes. */
  readonly sizeBytes: number;
  /** What a tensor holds: kernels refuse another type. Default: anything. */
  readonly dtype?: DType;
  /** Whose a tensor is: a batch refuses another device's. Default: anybody's. */
  readonly device?: { readonly gpuDevice: GPUDevice };
  /** A tensor's name, for errors. */
  readonly label?: string;
}

/**
 * The part of `range` that starts `offsetBytes` into it.
 * @throws VramError `invalid-argument` where the part leaves the range or is not aligned to 4
 * bytes.
 */
export function subrange(
  range: BufferRange,
  offsetBytes: number,
  sizeBytes: number = range.sizeBytes - offsetBytes,
): BufferRange {
  assertArgument(
    Number.isSafeInteger(offsetBytes) && offsetBytes >= 0 && offsetBytes % 4 === 0,
    `offset ${offsetBytes} B must be a non-negative multiple of 4`,
    { offsetBytes },
  );
  assertArgument(
    Number.isSafeInteger(sizeBytes) && sizeBytes >= 0 && offsetBytes + sizeBytes <= range.sizeBytes,
    `${offsetBytes} + ${sizeBytes} B leaves a range of ${range.sizeBytes} B`,
    { offsetBytes, sizeBytes, rangeBytes: range.sizeBytes },
  );
  return { buffer: range.buffer, offsetBytes: range.offsetBytes + offsetBytes, sizeBytes };
}

/** WebGPU's buffer usage bits; the global `GPUBufferUsage` does not exist in Node. */
export const BufferUsage = {
  mapRead: 0x1,
  mapWrite: 0x2,
  copySource: 0x4,
  copyDestination: 0x8,
  uniform: 0x40,
  storage: 0x80,
  indirect: 0x100,
} as const;

/** How an error calls a range. */
export function nameOf(range: BufferRange): string {
  return range.label === undefined ? 'a range' : `tensor '${range.label}'`;
}

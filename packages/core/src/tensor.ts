/**
 * Tensors: element type, shape and label over a buffer range. A layout and movement type (write,
 * read, slice, reshape, cast, copy, dispose), not a maths library.
 *
 * A tensor is contiguous, row-major. It owns its memory when {@link createTensor} made it; views
 * from {@link Tensor.slice} and {@link Tensor.reshape}, and tensors over foreign buffers, borrow
 * it. A tensor is itself a {@link BufferRange}, so kernels bind it as it is and any other library
 * can take its `buffer`.
 */
import { assertArgument, checkInteger, fail } from './assert.js';
import type { Batch } from './batch.js';
import type { BufferRange } from './buffer.js';
import { castKernel, type CastDType } from './cast.js';
import type { VramDevice } from './device.js';
import { bf16ToF32, dtypeBytes, f16ArrayToF32, f32ToBf16, f32ToF16, type DType } from './dtype.js';
import type { ReadOptions } from './readback.js';
import {
  allocate,
  paddedBytes,
  type Allocation,
  type MemoryKind,
  type MemoryResource,
} from './resource.js';
import { contiguousStrides, elementCount, sameShape, type Shape } from './shape.js';
import { writeRange } from './upload.js';

/** Options of {@link createTensor}. */
export interface TensorOptions {
  /** Type of an element. */
  readonly dtype: DType;
  /** Extents, outermost first. */
  readonly shape: Shape;
  /** What the memory is for. */
  readonly kind: MemoryKind;
  /** Name in errors, traces and memory reports. */
  readonly label: string;
  /** Where the memory comes from. Default: the device's budgeted memory. */
  readonly memory?: MemoryResource;
}

/** Host arrays that tensors take; those that they give are of memory that nothing shares. */
export type HostArray<Memory extends ArrayBufferLike = ArrayBufferLike> =
  | Float32Array<Memory>
  | Uint32Array<Memory>
  | Int32Array<Memory>
  | Uint8Array<Memory>
  | Int8Array<Memory>;

/**
 * A dtype and shape view of device memory; see {@link createTensor} and {@link tensorFromBuffer}.
 */
export class Tensor implements BufferRange {
  readonly device: VramDevice;
  readonly dtype: DType;
  readonly shape: Shape;
  /** Elements between neighbours, per dimension. */
  readonly strides: readonly number[];
  readonly label: string;
  readonly offsetBytes: number;
  /** Bytes bound, rounded up to a multiple of four; four of an empty tensor with its own memory. */
  readonly sizeBytes: number;
  readonly #buffer: GPUBuffer;
  readonly #release: (() => void) | undefined;
  readonly #root: Tensor | undefined;
  #disposed = false;

  /** Use {@link createTensor} or {@link tensorFromBuffer}. */
  constructor(
    device: VramDevice,
    range: Omit<BufferRange, 'sizeBytes'>,
    layout: { readonly dtype: DType; readonly shape: Shape; readonly label: string },
    ownership: { readonly release?: () => void; readonly root?: Tensor } = {},
  ) {
    const bytes = dtypeBytes(layout.dtype, elementCount(layout.shape));
    this.device = device;
    this.dtype = layout.dtype;
    this.shape = [...layout.shape];
    this.strides = contiguousStrides(layout.shape);
    this.label = layout.label;
    this.offsetBytes = range.offsetBytes;
    this.sizeBytes = ownership.release === undefined ? paddedTo4(bytes) : paddedBytes(bytes);
    this.#buffer = range.buffer;
    this.#release = ownership.release;
    this.#root = ownership.root;
  }

  /**
   * The buffer, to bind or to lend.
   * @throws VramError `disposed`.
   */
  get buffer(): GPUBuffer {
    if (this.isDisposed) fail('disposed', `tensor '${this.label}' was disposed`);
    return this.#buffer;
  }

  /** Whether the memory is gone. */
  get isDisposed(): boolean {
    return this.#disposed || (this.#root?.isDisposed ?? false);
  }

  /**
   * Rows `[start, start + count)` of the outermost dimension, as a view. The device writes whole
   * words of 4 bytes, so rows of 8 or 16-bit elements are cut only between words: a write to a part
   * of a word would change the neighbouring row.
   * @throws VramError `invalid-argument` where the rows leave the tensor, start off a 4-byte
   * boundary, or end off one before the tensor's end.
   */
  slice(start: number, count: number): Tensor {
    const [rows] = this.shape;
    assertArgument(rows !== undefined, 'a scalar has no rows');
    assertArgument(
      Number.isSafeInteger(start) && Number.isSafeInteger(count) && start >= 0 && count >= 0,
      `rows ${start} + ${count}`,
    );
    assertArgument(start + count <= rows, `rows ${start} + ${count} leave ${rows}`);
    const offset = dtypeBytes(this.dtype, start * (this.strides[0] ?? 1));
    assertArgument(offset % 4 === 0, `row ${start} of '${this.label}' is not 4-byte aligned`);
    const end = dtypeBytes(this.dtype, (start + count) * (this.strides[0] ?? 1));
    assertArgument(
      end % 4 === 0 || start + count === rows,
      `row ${start + count} of '${this.label}', where the part ends, is not 4-byte aligned`,
    );
    return this.#view([count, ...this.shape.slice(1)], this.offsetBytes + offset);
  }

  /**
   * The same elements under another shape, as a view.
   * @throws VramError `invalid-argument` where the element counts differ.
   */
  reshape(shape: Shape): Tensor {
    assertArgument(
      elementCount(shape) === elementCount(this.shape),
      `[${this.shape.join(', ')}] cannot become [${shape.join(', ')}]`,
    );
    return this.#view(shape, this.offsetBytes);
  }

  #view(shape: Shape, offsetBytes: number): Tensor {
    const layout = { dtype: this.dtype, shape, label: this.label };
    return new Tensor(this.device, { buffer: this.buffer, offsetBytes }, layout, { root: this });
  }

  /**
   * Writes all elements through the queue. Floats are given as `Float32Array` and rounded to
   * nearest even for 16-bit types; integers as the array of their type.
   * @throws VramError `invalid-argument` for another count or array type.
   */
  write(data: HostArray): void {
    const count = elementCount(this.shape);
    assertArgument(data.length === count, `'${this.label}' takes ${count} elements`, {
      given: data.length,
    });
    writeRange(this.device, this, encode(this, data));
  }

  /**
   * Reads all elements: `Float32Array` for float types, else the array of the type.
   * @throws VramError as `ReadbackRing.read`.
   */
  async read(options?: ReadOptions): Promise<HostArray<ArrayBuffer>> {
    const bytes = await this.device.readback.read(this, options);
    return decode(this.dtype, bytes, elementCount(this.shape));
  }

  /**
   * Reads a float tensor.
   * @throws VramError `invalid-argument` for an integer tensor.
   */
  async readFloats(options?: ReadOptions): Promise<Float32Array<ArrayBuffer>> {
    const data = await this.read(options);
    if (!(data instanceof Float32Array)) {
      return fail('invalid-argument', `'${this.label}' holds ${this.dtype}, not floats`);
    }
    return data;
  }

  /**
   * Copies all elements to another tensor on the device, converting between f32 and f16, and from
   * bf16, where the element types differ. Recorded into `batch`.
   * @throws VramError `invalid-argument` for another shape, `unsupported` for another conversion.
   */
  copyTo(target: Tensor, batch: Batch): void {
    assertArgument(
      sameShape(this.shape, target.shape),
      `[${this.shape.join(', ')}] does not copy to [${target.shape.join(', ')}]`,
    );
    const count = elementCount(this.shape);
    if (count === 0) return;
    if (this.dtype === target.dtype) return batch.copy(this, target);
    const from = castDType(this.dtype);
    const to = castDType(target.dtype);
    if (to === 'bf16') fail('unsupported', 'the device does not round to bf16; use f16 or f32');
    // Four elements a step, four steps an invocation; the last step is guarded by the array length.
    const workgroups = Math.ceil(count / (64 * 4));
    batch.dispatch(castKernel, {
      params: { from, to },
      bindings: { source: this, result: target },
      uniforms: { count },
      workgroups,
    });
  }

  /** Gives the memory back where this tensor owns it; idempotent. Views become unusable too. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#release?.();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function castDType(dtype: DType): CastDType {
  if (dtype === 'f32' || dtype === 'f16' || dtype === 'bf16') return dtype;
  return fail('unsupported', `no conversion from or to ${dtype}`);
}

function paddedTo4(bytes: number): number {
  return Math.ceil(bytes / 4) * 4;
}

/**
 * Allocates a tensor; the caller disposes it.
 * @throws VramError `out-of-memory` naming kind and shortfall, before the driver is asked.
 * @example
 * ```ts
 * import { createTensor, openDevice } from '@vramkit/core';
 * using device = await openDevice();
 * using x = createTensor(device, { dtype: 'f32', shape: [2, 3], kind: 'activations', label: 'x' });
 * x.write(new Float32Array([1, 2, 3, 4, 5, 6]));
 * console.log(await x.slice(1, 1).read());
 * ```
 */
export function createTensor(device: VramDevice, options: TensorOptions): Tensor {
  device.assertUsable();
  const memory = options.memory ?? device.memory;
  const sizeBytes = paddedBytes(dtypeBytes(options.dtype, elementCount(options.shape)));
  const { kind, label } = options;
  const allocation: Allocation = allocate(memory, { sizeBytes, kind, label });
  return new Tensor(device, allocation, options, { release: () => memory.free(allocation) });
}

/**
 * A tensor over a buffer that somebody else owns; it is never destroyed here. It covers whole words
 * of 4 bytes: where elements of 8 or 16 bits end within one, a write changes the rest of it.
 * @throws VramError `invalid-argument` where the buffer is too small for the shape, or the offset
 * is not a multiple of 4.
 */
export function tensorFromBuffer(
  device: VramDevice,
  buffer: GPUBuffer,
  options: {
    readonly dtype: DType;
    readonly shape: Shape;
    readonly label?: string;
    /** Start within the buffer, bytes, a multiple of 4. Default: 0. */
    readonly offsetBytes?: number;
  },
): Tensor {
  const offsetBytes = checkInteger('offsetBytes', options.offsetBytes ?? 0);
  const label = options.label ?? buffer.label;
  assertArgument(offsetBytes % 4 === 0, `'${label}' starts at ${offsetBytes} B, not between words`);
  const tensor = new Tensor(device, { buffer, offsetBytes }, { ...options, label });
  assertArgument(
    offsetBytes + tensor.sizeBytes <= buffer.size,
    `${tensor.sizeBytes} B at ${offsetBytes} leave a buffer of ${buffer.size} B`,
    { sizeBytes: tensor.sizeBytes, offsetBytes, bufferBytes: buffer.size },
  );
  return tensor;
}

function encode({ dtype, label }: Tensor, data: HostArray): ArrayBufferView {
  const isFloat = dtype === 'f32' || dtype === 'f16' || dtype === 'bf16';
  const arrays = { f32: Float32Array, u32: Uint32Array, i32: Int32Array, u8: Uint8Array };
  const wanted = isFloat ? Float32Array : dtype === 'i8' ? Int8Array : arrays[dtype];
  assertArgument(
    data instanceof wanted,
    `'${label}' of ${dtype} is written from a ${wanted.name}, not a ${data.constructor.name}`,
  );
  if (dtype === 'f16' || dtype === 'bf16') {
    const narrow = dtype === 'f16' ? f32ToF16 : f32ToBf16;
    const out = new Uint16Array(Math.ceil(data.length / 2) * 2);
    for (let i = 0; i < data.length; i++) out[i] = narrow(data[i] ?? 0);
    return out;
  }
  if (data.byteLength % 4 === 0) return data;
  const padded = new Uint8Array(paddedTo4(data.byteLength));
  padded.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return padded;
}

function decode(
  dtype: DType,
  bytes: Uint8Array<ArrayBuffer>,
  count: number,
): HostArray<ArrayBuffer> {
  const { buffer, byteOffset } = bytes;
  switch (dtype) {
    case 'f32':
      return new Float32Array(buffer, byteOffset, count);
    case 'u32':
      return new Uint32Array(buffer, byteOffset, count);
    case 'i32':
      return new Int32Array(buffer, byteOffset, count);
    case 'u8':
      return new Uint8Array(buffer, byteOffset, count);
    case 'i8':
      return new Int8Array(buffer, byteOffset, count);
    case 'f16':
      return f16ArrayToF32(new Uint16Array(buffer, byteOffset, count));
    case 'bf16':
      return Float32Array.from(new Uint16Array(buffer, byteOffset, count), bf16ToF32);
  }
}

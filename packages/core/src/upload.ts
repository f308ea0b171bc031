/**
 * Writes to the device: a direct write for small data, and an uploader that measures for large
 * data.
 *
 * There are two ways up. `queue.writeBuffer` lets the driver choose its staging; a ring of mapped
 * buffers copies once into staging memory and lets the GPU fetch it. Which one is faster depends on
 * the driver (software drivers: writeBuffer by 3 to 10 times), so {@link Uploader} times both on
 * its first large chunks and keeps the faster; nothing is assumed from the driver's name.
 */
import { assertArgument, fail, throwIfAborted } from './assert.js';
import { BufferUsage, subrange, type BufferRange } from './buffer.js';
import type { VramDevice } from './device.js';
import { allocate, type Allocation } from './resource.js';

/**
 * Host data that can be written: any view, also of shared memory, whose bytes are a multiple of
 * four.
 */
export type HostData = ArrayBufferView;

/**
 * Writes `data` into `range` at `offsetBytes` through the queue; the data may be reused at once.
 * For small data and for each step of a loop. `offsetBytes` and the data's size are multiples of 4.
 * @throws VramError `invalid-argument` where the data leaves the range; `device-lost`; `disposed`.
 */
export function writeRange(
  device: VramDevice,
  range: BufferRange,
  data: HostData,
  offsetBytes = 0,
): void {
  device.assertUsable();
  if (data.byteLength === 0) return;
  assertArgument(
    data.byteLength % 4 === 0 &&
      offsetBytes % 4 === 0 &&
      offsetBytes >= 0 &&
      offsetBytes + data.byteLength <= Math.ceil(range.sizeBytes / 4) * 4,
    `a write of ${data.byteLength} B at ${offsetBytes} does not fit a range of ` +
      `${range.sizeBytes} B`,
    { sizeBytes: data.byteLength, offsetBytes, rangeBytes: range.sizeBytes },
  );
  const start = range.offsetBytes + offsetBytes;
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  device.gpuDevice.queue.writeBuffer(range.buffer, start, unshared(bytes));
  device.counters.uploadedBytes += data.byteLength;
}

/** The same bytes outside shared memory, which the queue refuses; a copy only of shared ones. */
function unshared(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  // The typings do not narrow a view by the class of its buffer.
  if (bytes.buffer instanceof ArrayBuffer) return bytes as Uint8Array<ArrayBuffer>;
  return new Uint8Array(bytes);
}

/** The two ways to upload. */
export type UploadMethod = 'write-buffer' | 'mapped-ring';

/** Options of {@link Uploader}. */
export interface UploaderOptions {
  /** A fixed way, or 'measure' to time both on the first large chunks. Default: 'measure'. */
  readonly method?: UploadMethod | 'measure';
  /** Bytes moved at once, a multiple of 4. Default: 4 MiB. The ring holds two chunks. */
  readonly chunkBytes?: number;
  /** Clock in milliseconds. Default: `performance.now`. */
  readonly now?: () => number;
}

/** Options of {@link Uploader.upload}. */
export interface UploadOptions {
  /** Stops between chunks; bytes already written stay written. */
  readonly signal?: AbortSignal;
  /** Called after each chunk with bytes done and bytes in all. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

const MAP_WRITE = 2;
const RING_SLOTS = 2;
const SAMPLES_PER_METHOD = 3;

/** Moves large data to the device in chunks; see the head of this file. */
export class Uploader {
  readonly #device: VramDevice;
  readonly #chunkBytes: number;
  readonly #now: () => number;
  readonly #ring: Allocation[] = [];
  /** Per slot: resolves when all moves that took it have submitted and it is mapped again. */
  readonly #ready: Promise<void>[] = [];
  #next = 0;
  /** Moves that wait for a slot of the ring. */
  #waiting = 0;
  #disposed = false;
  #method: UploadMethod | undefined;
  readonly #samples: Record<UploadMethod, number[]> = { 'write-buffer': [], 'mapped-ring': [] };

  constructor(device: VramDevice, options: UploaderOptions = {}) {
    this.#device = device;
    this.#chunkBytes = options.chunkBytes ?? 4 * 1024 * 1024;
    assertArgument(
      Number.isSafeInteger(this.#chunkBytes) && this.#chunkBytes > 0 && this.#chunkBytes % 4 === 0,
      `chunkBytes ${this.#chunkBytes} must be a positive multiple of 4`,
    );
    this.#now = options.now ?? (() => performance.now());
    if (options.method !== undefined && options.method !== 'measure') this.#method = options.method;
  }

  /** The way in use, or `undefined` while it is being measured. */
  get method(): UploadMethod | undefined {
    return this.#method;
  }

  /** GB/s of each way in the samples taken so far; `undefined` where there is none. */
  get measuredGbps(): Readonly<Record<UploadMethod, number | undefined>> {
    return {
      'write-buffer': best(this.#samples['write-buffer']),
      'mapped-ring': best(this.#samples['mapped-ring']),
    };
  }

  /**
   * Writes all of `data` into `range` at `offsetBytes`. Resolves when the data may be reused; the
   * device sees it before any work submitted later. Several may be in flight.
   * @throws VramError `invalid-argument`, `aborted`, `out-of-memory` for the ring, `device-lost`,
   * `disposed` where the uploader is disposed before the end.
   */
  async upload(
    range: BufferRange,
    data: HostData,
    offsetBytes = 0,
    options: UploadOptions = {},
  ): Promise<void> {
    this.#assertUsable();
    assertArgument(data.byteLength % 4 === 0, `${data.byteLength} B is not a multiple of 4`);
    subrange(range, offsetBytes, data.byteLength);
    for (let done = 0; done < data.byteLength; done += this.#chunkBytes) {
      throwIfAborted(options.signal);
      this.#assertUsable();
      const length = Math.min(this.#chunkBytes, data.byteLength - done);
      const chunk = new Uint8Array(data.buffer, data.byteOffset + done, length);
      await this.#move(subrange(range, offsetBytes + done, length), chunk);
      options.onProgress?.(done + length, data.byteLength);
    }
  }

  async #move(range: BufferRange, chunk: Uint8Array): Promise<void> {
    if (this.#method !== undefined) return this.#by(this.#method, range, chunk);
    if (chunk.byteLength < this.#chunkBytes) return this.#by('write-buffer', range, chunk);
    const { 'write-buffer': direct, 'mapped-ring': mapped } = this.#samples;
    const method = direct.length <= mapped.length ? 'write-buffer' : 'mapped-ring';
    const start = this.#now();
    await this.#by(method, range, chunk);
    await this.#device.settle();
    this.#samples[method].push(chunk.byteLength / (this.#now() - start) / 1e6);
    if (mapped.length < SAMPLES_PER_METHOD) return;
    this.#method = (best(mapped) ?? 0) > (best(direct) ?? 0) ? 'mapped-ring' : 'write-buffer';
    this.#freeUnusedRing();
  }

  async #by(method: UploadMethod, range: BufferRange, chunk: Uint8Array): Promise<void> {
    if (method === 'write-buffer') writeRange(this.#device, range, chunk);
    else await this.#byRing(range, chunk);
  }

  async #byRing(range: BufferRange, chunk: Uint8Array): Promise<void> {
    const slot = this.#next;
    const staging = (this.#ring[slot] ??= this.#allocateSlot());
    this.#next = (slot + 1) % RING_SLOTS;
    // The slot's next move waits for this one, so its turn is noted before anything is awaited.
    const moved = this.#through(staging, this.#ready[slot] ?? mapForWrites(staging), range, chunk);
    const ready = moved
      .catch(() => undefined)
      .then(() => (this.#ring[slot] === staging ? mapForWrites(staging) : undefined));
    ready.catch(() => undefined); // Awaited at the slot's next use, or dropped on disposal.
    this.#ready[slot] = ready;
    this.#waiting += 1;
    try {
      await moved;
    } catch (error) {
      this.#assertUsable();
      throw error;
    } finally {
      this.#waiting -= 1;
      this.#freeUnusedRing();
    }
  }

  #allocateSlot(): Allocation {
    return allocate(this.#device.memory, {
      sizeBytes: this.#chunkBytes,
      kind: 'staging',
      label: 'upload',
      usage: BufferUsage.mapWrite | BufferUsage.copySource,
    });
  }

  /** Copies a chunk into staging memory once that is mapped, and submits its copy to the range. */
  async #through(
    staging: Allocation,
    ready: Promise<void>,
    range: BufferRange,
    chunk: Uint8Array,
  ): Promise<void> {
    const device = this.#device;
    await device.orLost(ready);
    this.#assertUsable();
    const target = new Uint8Array(staging.buffer.getMappedRange(0, chunk.byteLength));
    try {
      target.set(chunk); // Throws where the caller transferred the data meanwhile.
    } finally {
      staging.buffer.unmap();
    }
    const encoder = device.gpuDevice.createCommandEncoder({ label: 'upload' });
    const { buffer, offsetBytes } = range;
    encoder.copyBufferToBuffer(staging.buffer, 0, buffer, offsetBytes, chunk.byteLength);
    device.gpuDevice.queue.submit([encoder.finish()]);
    device.counters.submits += 1;
    device.counters.uploadedBytes += chunk.byteLength;
  }

  #assertUsable(): void {
    if (this.#disposed) fail('disposed', 'the uploader was disposed');
  }

  /** Frees the ring where the measurement chose the other way and no move is in it. */
  #freeUnusedRing(): void {
    if (this.#method === 'write-buffer' && this.#waiting === 0) this.#freeRing();
  }

  #freeRing(): void {
    for (const staging of this.#ring) this.#device.memory.free(staging);
    this.#ring.length = 0;
    this.#ready.length = 0;
    this.#next = 0;
  }

  /** Frees the staging ring; idempotent. Uploads in flight reject with `disposed`. */
  dispose(): void {
    this.#disposed = true;
    this.#freeRing();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function mapForWrites(staging: Allocation): Promise<void> {
  const mapping = staging.buffer.mapAsync(MAP_WRITE);
  mapping.catch(() => undefined); // Rejects with the device or on disposal, awaited or not.
  return mapping;
}

function best(samples: readonly number[]): number | undefined {
  return samples.length === 0 ? undefined : Math.max(...samples);
}

/**
 * Reads from the device through a ring of reusable staging buffers.
 *
 * Staging buffers come in powers of two and are kept after use, so a read of the same size in every
 * step creates no buffer. Large ranges move in chunks, two in flight.
 */
import { checkInteger, throwIfAborted } from './assert.js';
import { BufferUsage, subrange, type BufferRange } from './buffer.js';
import type { DeviceCounters } from './counters.js';
import { allocate, type Allocation, type MemoryResource } from './resource.js';

/** Options of {@link ReadbackRing.read}. */
export interface ReadOptions {
  /** Stops between chunks. */
  readonly signal?: AbortSignal;
  /** Called after each chunk with bytes done and bytes in all. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/** What the ring needs of its device. */
export interface ReadbackHost {
  readonly gpuDevice: GPUDevice;
  readonly memory: MemoryResource;
  readonly counters: DeviceCounters;
  /** @throws VramError `disposed` or `device-lost` where no work can be submitted any more. */
  assertUsable(): void;
  /** The result of `promise`, or `device-lost` where the device goes first. */
  orLost<T>(promise: Promise<T>): Promise<T>;
  /** Rejects with the first driver error that nobody was told of. */
  throwGathered(): Promise<void>;
}

const MIN_STAGING_BYTES = 4 * 1024;
const CHUNK_BYTES = 8 * 1024 * 1024;
const MAX_IDLE_PER_SIZE = 4;
const MAP_READ = 1;

/** Staging buffers for reads; one per device, at `device.readback`. */
export class ReadbackRing {
  readonly #device: ReadbackHost;
  readonly #idle = new Map<number, Allocation[]>();
  readonly #busy = new Set<Allocation>();
  #disposed = false;

  constructor(device: ReadbackHost) {
    this.#device = device;
  }

  /** Staging buffers alive now, idle ones included. */
  get buffers(): Allocation[] {
    return [...this.#busy, ...this.#idle.values()].flat();
  }

  /**
   * The bytes of `range` after all work submitted so far.
   * @throws VramError `device-lost`, `aborted`, `out-of-memory` for staging, or an earlier driver
   * error.
   */
  async read(range: BufferRange, options: ReadOptions = {}): Promise<Uint8Array> {
    checkInteger('sizeBytes', range.sizeBytes);
    const result = new Uint8Array(range.sizeBytes);
    let done = 0;
    const finish = async (part: BufferRange, offset: number): Promise<void> => {
      await this.#readChunk(part, result, offset);
      done += part.sizeBytes;
      options.onProgress?.(done, range.sizeBytes);
    };
    let previous: Promise<void> = Promise.resolve();
    for (let offset = 0; offset < range.sizeBytes; offset += CHUNK_BYTES) {
      throwIfAborted(options.signal);
      const sizeBytes = Math.min(CHUNK_BYTES, range.sizeBytes - offset);
      const current = finish(subrange(range, offset, sizeBytes), offset);
      current.catch(() => undefined); // Observed below; the loop may leave first.
      await previous;
      previous = current;
    }
    await previous;
    await this.#device.throwGathered();
    return result;
  }

  async #readChunk(range: BufferRange, result: Uint8Array, offset: number): Promise<void> {
    const device = this.#device;
    const copyBytes = Math.ceil(range.sizeBytes / 4) * 4;
    const staging = this.#take(copyBytes);
    try {
      const encoder = device.gpuDevice.createCommandEncoder({ label: 'readback' });
      const { buffer, offsetBytes } = range;
      encoder.copyBufferToBuffer(buffer, offsetBytes, staging.buffer, 0, copyBytes);
      device.gpuDevice.queue.submit([encoder.finish()]);
      device.counters.submits += 1;
      await device.orLost(staging.buffer.mapAsync(MAP_READ, 0, copyBytes));
      const mapped = new Uint8Array(staging.buffer.getMappedRange(0, copyBytes));
      result.set(mapped.subarray(0, range.sizeBytes), offset);
      staging.buffer.unmap();
      device.counters.downloadedBytes += range.sizeBytes;
      this.#give(staging);
    } catch (error) {
      this.#drop(staging);
      throw error;
    }
  }

  #take(sizeBytes: number): Allocation {
    this.#device.assertUsable();
    const size = Math.max(MIN_STAGING_BYTES, 2 ** Math.ceil(Math.log2(sizeBytes)));
    const staging =
      this.#idle.get(size)?.pop() ??
      allocate(this.#device.memory, {
        sizeBytes: size,
        kind: 'staging',
        label: 'readback',
        usage: BufferUsage.mapRead | BufferUsage.copyDestination,
      });
    this.#busy.add(staging);
    return staging;
  }

  #give(staging: Allocation): void {
    const idle = this.#idle.get(staging.sizeBytes) ?? [];
    if (this.#disposed || idle.length >= MAX_IDLE_PER_SIZE) return this.#drop(staging);
    this.#busy.delete(staging);
    idle.push(staging);
    this.#idle.set(staging.sizeBytes, idle);
  }

  /** Frees a busy buffer; disposal may have done so while a read waited. */
  #drop(staging: Allocation): void {
    if (this.#busy.delete(staging)) this.#device.memory.free(staging);
  }

  /** Frees all staging memory; reads in flight reject. */
  dispose(): void {
    this.#disposed = true;
    this.trim();
    for (const staging of this.#busy) this.#drop(staging);
  }

  /** Frees idle staging memory, for instance under memory pressure. Returns the bytes freed. */
  trim(): number {
    let freed = 0;
    for (const idle of this.#idle.values()) {
      for (const staging of idle) {
        freed += staging.sizeBytes;
        this.#device.memory.free(staging);
      }
    }
    this.#idle.clear();
    return freed;
  }
}

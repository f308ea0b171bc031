/**
 * Reads from the device through a ring of reusable staging buffers.
 *
 * A read takes staging for its whole range, submits all copies in one submit before it returns its
 * promise, and then maps the buffers one after another. So it gives the bytes of one moment, and
 * costs up to its size, rounded up, of the budget while it lasts. Where the budget has less room,
 * the range is read in parts: what fits now, and the rest when that was copied out.
 *
 * Staging buffers come in powers of two from 4 KiB to 8 MiB and are kept after use, eight of a
 * size, so a read of up to 64 MiB in every step creates no buffer. Idle ones are freed where a read
 * finds no room, and by {@link ReadbackRing.trim}.
 */
import { checkInteger, throwIfAborted } from './assert.js';
import { BufferUsage, type BufferRange } from './buffer.js';
import type { DeviceCounters } from './counters.js';
import {
  allocate,
  paddedBytes,
  type Allocation,
  type AllocationRequest,
  type MemoryResource,
} from './resource.js';

/** Options of {@link ReadbackRing.read}. */
export interface ReadOptions {
  /** Stops between chunks. */
  readonly signal?: AbortSignal;
  /** Called after each chunk with bytes done and bytes in all. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  /**
   * Whether to reject with `out-of-memory` where there is no staging for the whole range, instead
   * of reading it in parts. For a range that is written again before the read ends. Default: false.
   */
  readonly atOnce?: boolean;
}

/** Where one staging buffer's bytes go in the result of a read. */
interface Part {
  readonly staging: Allocation;
  readonly offset: number;
  readonly sizeBytes: number;
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
const MAX_IDLE_PER_SIZE = 8;
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
   * The bytes of `range` after all work submitted so far. All copies are submitted before this
   * returns, except under memory pressure: a range of more than 4 KiB for whose staging there is no
   * room is read in parts, and must not be written before the promise settles; see
   * {@link ReadOptions.atOnce}.
   * @throws VramError `device-lost`, `disposed`, `aborted`, `out-of-memory` for staging, or an
   * earlier driver error.
   */
  async read(range: BufferRange, options: ReadOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
    checkInteger('sizeBytes', range.sizeBytes);
    const result = new Uint8Array(range.sizeBytes);
    let mostBytes = CHUNK_BYTES;
    for (let done = 0; done < range.sizeBytes;) {
      throwIfAborted(options.signal);
      const parts = this.#stage(range.sizeBytes, done, mostBytes, options.atOnce ?? false);
      mostBytes = parts[0]?.staging.sizeBytes ?? mostBytes;
      try {
        const mappings = this.#submit(range, parts);
        for (let part = parts[0]; part !== undefined; part = parts[0]) {
          throwIfAborted(options.signal);
          await this.#settled(mappings.shift() ?? Promise.resolve());
          this.#copyOut(part, result);
          parts.shift();
          this.#give(part.staging);
          done += part.sizeBytes;
          options.onProgress?.(done, range.sizeBytes);
        }
      } finally {
        for (const { staging } of parts) this.#drop(staging);
      }
    }
    await this.#device.throwGathered();
    return result;
  }

  /** Copies the parts to their staging buffers in one submit, and maps those. */
  #submit(range: BufferRange, parts: readonly Part[]): Promise<void>[] {
    const { gpuDevice, counters } = this.#device;
    const encoder = gpuDevice.createCommandEncoder({ label: 'readback' });
    const { buffer, offsetBytes } = range;
    for (const { staging, offset, sizeBytes } of parts) {
      const from = offsetBytes + offset;
      encoder.copyBufferToBuffer(buffer, from, staging.buffer, 0, paddedBytes(sizeBytes));
    }
    gpuDevice.queue.submit([encoder.finish()]);
    counters.submits += 1;
    return parts.map(({ staging, sizeBytes }) => {
      const mapping = staging.buffer.mapAsync(MAP_READ, 0, paddedBytes(sizeBytes));
      mapping.catch(() => undefined); // Awaited in turn, unless the read ends before.
      return mapping;
    });
  }

  /** Waits for a mapping; rejects with what made it impossible where that is known. */
  async #settled(mapping: Promise<void>): Promise<void> {
    try {
      await this.#device.orLost(mapping);
    } catch (error) {
      await this.#device.throwGathered();
      throw error;
    }
  }

  #copyOut({ staging, offset, sizeBytes }: Part, result: Uint8Array): void {
    const mapped = new Uint8Array(staging.buffer.getMappedRange(0, paddedBytes(sizeBytes)));
    result.set(mapped.subarray(0, sizeBytes), offset);
    staging.buffer.unmap();
    this.#device.counters.downloadedBytes += sizeBytes;
  }

  /** Staging for as much of `[start, end)` as there is room for, the largest buffers first. */
  #stage(end: number, start: number, mostBytes: number, atOnce: boolean): Part[] {
    this.#device.assertUsable();
    const parts: Part[] = [];
    let size = mostBytes;
    try {
      for (let offset = start; offset < end;) {
        size = Math.min(size, Math.max(MIN_STAGING_BYTES, 2 ** Math.ceil(Math.log2(end - offset))));
        const isLast = size === MIN_STAGING_BYTES;
        const mustBe = atOnce || parts.length === 0;
        const staging = mustBe ? this.#tryTake(size, isLast) : this.#takeFree(size);
        if (staging !== undefined) {
          const sizeBytes = Math.min(size, end - offset);
          parts.push({ staging, offset, sizeBytes });
          offset += sizeBytes;
        } else if (isLast) break;
        else size /= 2;
      }
      return parts;
    } catch (error) {
      for (const { staging } of parts) this.#give(staging);
      throw error;
    }
  }

  /** A staging buffer where there is room for it now, without asking anybody to make some. */
  #takeFree(sizeBytes: number): Allocation | undefined {
    const { limitBytes, liveBytes, paddingBytes } = this.#device.memory.stats();
    const isFree = limitBytes - liveBytes - paddingBytes >= sizeBytes;
    return isFree || this.#idle.get(sizeBytes)?.length
      ? this.#tryTake(sizeBytes, false)
      : undefined;
  }

  /** A staging buffer; without room `undefined`, or `out-of-memory` where it is `needed`. */
  #tryTake(sizeBytes: number, needed: boolean): Allocation | undefined {
    const { memory } = this.#device;
    const request: AllocationRequest = {
      sizeBytes,
      kind: 'staging',
      label: 'readback',
      usage: BufferUsage.mapRead | BufferUsage.copyDestination,
    };
    let staging = this.#idle.get(sizeBytes)?.pop() ?? memory.tryAllocate(request);
    if (staging === undefined && this.trim() > 0) staging = memory.tryAllocate(request);
    if (staging === undefined && needed) staging = allocate(memory, request);
    if (staging !== undefined) this.#busy.add(staging);
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

  /**
   * Frees idle staging memory, for instance under memory pressure.
   * @returns The bytes freed.
   */
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

/**
 * The buffers of TensorFlow.js out of a memory resource of ours: every byte that the library takes
 * on the device counts against our budget, is refused where there is no room, and is in the trace.
 *
 * It takes the place of the library's own buffer manager and keeps what the library gives back for
 * a request of the same size and usage, as that one does; but where memory is short, here or for
 * somebody else, what is idle goes back.
 */
import {
  allocate,
  type Allocation,
  type LimitedResource,
  type MemoryKind,
  type VramDevice,
} from '@vramkit/core';

const STORAGE = 0x80;

/** A buffer manager as the library's backend wants it; `dispose()` frees all. */
export class TfjsBuffers {
  /** Bytes in use, and with idle ones. */
  numBytesUsed = 0;
  numBytesAllocated = 0;
  readonly #memory: LimitedResource;
  readonly #used = new Map<GPUBuffer, Allocation>();
  readonly #idle = new Map<string, Allocation[]>();
  readonly #removeListener: () => void;

  constructor({ memory }: VramDevice) {
    this.#memory = memory;
    this.#removeListener = memory.onPressure((missingBytes) => this.trim(missingBytes));
  }

  /** @throws VramError `out-of-memory`. */
  acquireBuffer(sizeBytes: number, usage: GPUBufferUsageFlags): GPUBuffer {
    const idle = this.#idle.get(`${sizeBytes}/${usage}`)?.pop();
    const allocation = idle ?? this.#allocate(sizeBytes, usage);
    this.#used.set(allocation.buffer, allocation);
    this.numBytesUsed += sizeBytes;
    return allocation.buffer;
  }

  releaseBuffer(buffer: GPUBuffer): void {
    const allocation = this.#used.get(buffer);
    if (allocation === undefined) return; // disposed before the library let go
    this.#used.delete(buffer);
    this.numBytesUsed -= allocation.sizeBytes;
    const key = `${allocation.sizeBytes}/${buffer.usage}`;
    const idle = this.#idle.get(key);
    if (idle === undefined) this.#idle.set(key, [allocation]);
    else idle.push(allocation);
  }

  /** Gives idle buffers back; bytes that were. The device ends what it has begun with them. */
  trim(targetBytes = Infinity): number {
    let freedBytes = 0;
    for (const allocations of this.#idle.values()) {
      while (freedBytes < targetBytes) {
        const allocation = allocations.pop();
        if (allocation === undefined) break;
        freedBytes += allocation.sizeBytes;
        this.#free(allocation);
      }
    }
    return freedBytes;
  }

  dispose(): void {
    this.#removeListener();
    this.trim();
    for (const allocation of this.#used.values()) this.#free(allocation);
    this.#used.clear();
    this.numBytesUsed = 0;
  }

  #allocate(sizeBytes: number, usage: GPUBufferUsageFlags): Allocation {
    const kind: MemoryKind = (usage & STORAGE) === 0 ? 'staging' : 'activations';
    const allocation = allocate(this.#memory, { sizeBytes, usage, kind, label: 'TensorFlow.js' });
    this.numBytesAllocated += sizeBytes;
    return allocation;
  }

  #free(allocation: Allocation): void {
    this.numBytesAllocated -= allocation.sizeBytes;
    this.#memory.free(allocation);
  }
}

/**
 * Device memory that the weights of one layer after another lie in, each laid out from the start.
 *
 * Layers of one shape get the same ranges, so kernels find their bind groups again whichever layer
 * is there. What is allocated is a view: giving it back does nothing, `rewind()` starts over.
 */
import {
  allocate,
  fail,
  paddedBytes,
  type Allocation,
  type AllocationRequest,
  type MemoryResource,
  type MemoryStats,
} from '@vramkit/core';

const ALIGNMENT = 256;

/** Bytes that a request takes in a slot. */
export function slotBytes(sizeBytes: number): number {
  return Math.ceil(paddedBytes(sizeBytes) / ALIGNMENT) * ALIGNMENT;
}

/** See the head of this file. */
export class SlotMemory implements MemoryResource {
  readonly #upstream: MemoryResource;
  readonly #block: Allocation;
  #usedBytes = 0;
  #disposed = false;

  /** Takes `sizeBytes` from `upstream`. @throws VramError `out-of-memory`. */
  constructor(upstream: MemoryResource, sizeBytes: number, label: string) {
    this.#upstream = upstream;
    this.#block = allocate(upstream, { sizeBytes, kind: 'weights', label });
  }

  /** What has been laid out since the last rewind. */
  get used(): Allocation {
    return { ...this.#block, sizeBytes: this.#usedBytes };
  }

  /** Starts over; views of before stay readable and show what is written next. */
  rewind(): void {
    this.#usedBytes = 0;
  }

  tryAllocate(request: AllocationRequest): Allocation | undefined {
    if (this.#disposed) fail('disposed', `slot '${this.#block.label}' was disposed`);
    const bytes = slotBytes(request.sizeBytes);
    const offset = this.#usedBytes;
    if (offset + bytes > this.#block.sizeBytes) return undefined;
    this.#usedBytes += bytes;
    const { buffer, offsetBytes } = this.#block;
    const { sizeBytes, kind, label } = request;
    return { buffer, offsetBytes: offsetBytes + offset, sizeBytes, kind, label };
  }

  free(): void {
    // Views go together, when the slot is rewound or disposed.
  }

  stats(): MemoryStats {
    const { sizeBytes } = this.#block;
    const byKind = { kv: 0, activations: 0, gradients: 0, optimizer: 0, staging: 0 };
    return {
      liveBytes: this.#usedBytes,
      paddingBytes: 0,
      reservedBytes: sizeBytes,
      peakReservedBytes: sizeBytes,
      limitBytes: sizeBytes,
      allocationCount: this.#usedBytes > 0 ? 1 : 0,
      liveBytesByKind: { ...byKind, weights: this.#usedBytes },
    };
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#upstream.free(this.#block);
  }
}

/**
 * Scratch of the attention kernels: partial results between dispatches of one call.
 *
 * Taken once and kept. Where a call needs more than was reserved it grows to at least twice the
 * size; the smaller range stays alive until disposal, because batches recorded before the growth
 * may still name it. Calls of one batch share the range: dispatches run in order.
 */
import {
  allocate,
  fail,
  type Allocation,
  type BufferRange,
  type MemoryResource,
} from '@vramkit/core';

/** One growing range of kind 'activations'. */
export class AttentionScratch {
  readonly #memory: MemoryResource;
  readonly #label: string;
  readonly #limitBytes: number;
  readonly #taken: Allocation[] = [];

  /** @param limitBytes The most that can be bound at once. */
  constructor(memory: MemoryResource, label: string, limitBytes: number) {
    this.#memory = memory;
    this.#label = label;
    this.#limitBytes = limitBytes;
  }

  /** Bytes taken from the memory resource, outgrown ranges included. */
  get sizeBytes(): number {
    return this.#taken.reduce((sum, allocation) => sum + allocation.sizeBytes, 0);
  }

  /**
   * A range of at least `sizeBytes`.
   * @throws VramError `out-of-memory`; `unsupported` where the range could not be bound.
   */
  reserve(sizeBytes: number): BufferRange {
    const current = this.#taken.at(-1);
    if (current !== undefined && current.sizeBytes >= sizeBytes) return current;
    if (sizeBytes > this.#limitBytes) {
      fail(
        'unsupported',
        `attention needs ${sizeBytes} B of scratch in one binding, the device allows ` +
          `${this.#limitBytes}; attend to fewer sequences at once`,
        { sizeBytes, limitBytes: this.#limitBytes },
      );
    }
    const wanted = Math.min(this.#limitBytes, Math.max(sizeBytes, 2 * (current?.sizeBytes ?? 0)));
    const request = { sizeBytes: wanted, kind: 'activations', label: this.#label } as const;
    const allocation = allocate(this.#memory, request);
    this.#taken.push(allocation);
    return allocation;
  }

  /** Gives everything back; idempotent. */
  dispose(): void {
    for (const allocation of this.#taken.splice(0)) this.#memory.free(allocation);
  }
}

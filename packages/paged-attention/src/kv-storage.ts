/**
 * The device memory of a paged KV cache: per segment one range per layer, and one of norms.
 *
 * All or nothing: where one allocation fails, those before it are given back and the cache does not
 * exist. Contents start undefined; no kernel reads a slot that was not written.
 */
import { allocate, type Allocation, type BufferRange, type MemoryResource } from '@vramkit/core';
import {
  layerBlockBytes,
  normBlockBytes,
  planRuns,
  type BlockRun,
  type KvLayout,
} from './kv-layout.js';
import type { VramDevice } from '@vramkit/core';

/** Storage of a run of blocks. */
export interface KvSegment extends BlockRun {
  /** K and V, one range per layer: `[blocks, 2 * kvHeads * blockSize * headDim]`. */
  readonly layers: readonly BufferRange[];
  /** `[blocks * blockSize, layers, kvHeads, 2]` f32. */
  readonly norms: BufferRange;
}

/** Owner of the ranges. */
export class KvStorage {
  readonly segments: readonly KvSegment[];
  readonly #memory: MemoryResource;
  readonly #allocations: Allocation[] = [];
  #disposed = false;

  /**
   * @throws VramError `out-of-memory` naming what did not fit, with nothing taken; `unsupported`
   * where one block exceeds a binding.
   */
  constructor(device: VramDevice, layout: KvLayout, memory: MemoryResource, label: string) {
    this.#memory = memory;
    const runs = planRuns(layout, device.limits);
    try {
      this.segments = runs.map((run) => this.#allocateSegment(layout, run, label));
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  #allocateSegment(layout: KvLayout, run: BlockRun, label: string): KvSegment {
    const take = (name: string, blockBytes: number): BufferRange => {
      const sizeBytes = run.blockCount * blockBytes;
      const request = { sizeBytes, kind: 'kv', label: `${label} ${name}` } as const;
      const allocation = allocate(this.#memory, request);
      this.#allocations.push(allocation);
      return allocation;
    };
    const layers = Array.from({ length: layout.layers }, (_, layer) =>
      take(`layer ${layer}`, layerBlockBytes(layout)),
    );
    return { ...run, layers, norms: take('norms', normBlockBytes(layout)) };
  }

  /** Whether a range lies in this buffer. */
  hasBuffer(buffer: GPUBuffer): boolean {
    return this.#allocations.some((allocation) => allocation.buffer === buffer);
  }

  /** Gives everything back; idempotent. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const allocation of this.#allocations) this.#memory.free(allocation);
    this.#allocations.length = 0;
  }
}

/**
 * A pool: keeps freed buffers and hands them out again, so that a steady state creates none.
 *
 * Sizes are rounded up to classes, `classesPerDoubling` of them between two powers of two, so a
 * tensor that grows a little with every step still finds a buffer. The cost is padding: at most 1 /
 * classesPerDoubling of a request (6 % at the default), except below 256 bytes. A freed buffer is
 * kept for its class, usage and kind; keeping kinds apart makes the attribution below the pool
 * true. What is idle stays reserved until {@link PooledResource.trim}. Where the upstream has no
 * room, the pool gives back idle buffers, the longest idle first, and asks again.
 *
 * Put large tensors that live as long as the program (weights) beside the pool, not in it.
 *
 * Rejected: cutting small allocations out of shared slabs. WebGPU forbids one dispatch to read a
 * buffer in one binding and write it in another, even where the ranges are apart: two tensors of
 * one slab could not be input and output of a kernel that does not expect it. `arenaResource` does
 * that where it is wanted.
 */
import { assertArgument, assertInvariant, checkInteger } from '../assert.js';
import {
  DEFAULT_BUFFER_USAGE,
  paddedBytes,
  type Allocation,
  type AllocationRequest,
  type MemoryResource,
  type MemoryStats,
} from '../resource.js';
import { AllocationLedger, checkRequest, effectiveLimitBytes } from './ledger.js';

/** Options of {@link pooledResource}. */
export interface PooledResourceOptions {
  /** Size classes between two powers of two; a power of two in [1, 256]. Default: 16. */
  readonly classesPerDoubling?: number;
  /**
   * Largest class, bytes: give the device's `maxBufferSize`, so that no class exceeds it. Default:
   * none.
   */
  readonly maxBufferBytes?: number;
  /**
   * Most idle bytes; what is freed above it goes back at once, longest idle first. Default: no
   * bound.
   */
  readonly maxIdleBytes?: number;
}

/** A {@link MemoryResource} that keeps freed memory for reuse. */
export interface PooledResource extends MemoryResource {
  /**
   * Gives idle buffers back to the upstream, the longest idle first, until at least `targetBytes`
   * are given back or none is idle. Fits as a pressure listener of a limit below the pool.
   * @param targetBytes Default: everything.
   * @returns Bytes given back.
   */
  trim(targetBytes?: number): number;
}

/** A buffer taken from the upstream, in use or idle. */
interface PooledBuffer {
  readonly upstreamAllocation: Allocation;
  readonly classBytes: number;
  readonly key: string;
}

const SMALLEST_CLASS_BYTES = 256;

/**
 * The size class of a request: the smallest class that holds it.
 * @param classesPerDoubling A power of two.
 */
export function sizeClassBytes(sizeBytes: number, classesPerDoubling: number): number {
  if (sizeBytes <= SMALLEST_CLASS_BYTES) return SMALLEST_CLASS_BYTES;
  const step = Math.max(4, 2 ** Math.floor(Math.log2(sizeBytes)) / classesPerDoubling);
  return Math.ceil(sizeBytes / step) * step;
}

/** A pool over `upstream`; see the notes of this module. */
export function pooledResource(
  upstream: MemoryResource,
  options: PooledResourceOptions = {},
): PooledResource {
  return new Pool(upstream, options);
}

class Pool implements PooledResource {
  readonly #upstream: MemoryResource;
  readonly #classesPerDoubling: number;
  readonly #maxBufferBytes: number;
  readonly #maxIdleBytes: number;
  readonly #ledger = new AllocationLedger<PooledBuffer>('pooled');
  /** Per class, the most recently freed last. */
  readonly #idleByKey = new Map<string, PooledBuffer[]>();
  /** Over all classes, in the order of freeing. */
  readonly #idleInOrder = new Set<PooledBuffer>();
  #idleBytes = 0;

  constructor(upstream: MemoryResource, options: PooledResourceOptions) {
    const { classesPerDoubling = 16, maxBufferBytes = Infinity, maxIdleBytes = Infinity } = options;
    checkInteger('classesPerDoubling', classesPerDoubling, 1, 256);
    assertArgument(
      Number.isInteger(Math.log2(classesPerDoubling)),
      `classesPerDoubling ${classesPerDoubling} is not a power of two`,
    );
    assertArgument(maxIdleBytes >= 0, `maxIdleBytes ${maxIdleBytes} is negative`);
    this.#upstream = upstream;
    this.#classesPerDoubling = classesPerDoubling;
    this.#maxBufferBytes = maxBufferBytes;
    this.#maxIdleBytes = maxIdleBytes;
  }

  tryAllocate(request: AllocationRequest): Allocation | undefined {
    this.#ledger.assertUsable();
    checkRequest(request);
    const pooled = this.#take(request);
    if (pooled === undefined) return undefined;
    const { buffer, offsetBytes } = pooled.upstreamAllocation;
    const { kind, label, sizeBytes } = request;
    const allocation: Allocation = { buffer, offsetBytes, sizeBytes, kind, label };
    this.#ledger.add(allocation, pooled.classBytes, pooled);
    this.#ledger.notePeak(this.#ledger.takenBytes + this.#idleBytes);
    return allocation;
  }

  free(allocation: Allocation): void {
    const pooled = this.#ledger.remove(allocation);
    const idle = this.#idleByKey.get(pooled.key);
    if (idle === undefined) this.#idleByKey.set(pooled.key, [pooled]);
    else idle.push(pooled);
    this.#idleInOrder.add(pooled);
    this.#idleBytes += pooled.classBytes;
    if (this.#idleBytes > this.#maxIdleBytes) this.trim(this.#idleBytes - this.#maxIdleBytes);
  }

  trim(targetBytes = Infinity): number {
    this.#ledger.assertUsable();
    let givenBack = 0;
    for (const pooled of this.#idleInOrder) {
      if (givenBack >= targetBytes) break;
      // Unlisted first: the upstream may call back into this pool.
      this.#idleInOrder.delete(pooled);
      const oldest = this.#idleByKey.get(pooled.key)?.shift();
      assertInvariant(oldest === pooled, 'the longest idle buffer is not the first of its class');
      this.#idleBytes -= pooled.classBytes;
      givenBack += pooled.classBytes;
      this.#upstream.free(pooled.upstreamAllocation);
    }
    return givenBack;
  }

  stats(): MemoryStats {
    const { takenBytes } = this.#ledger;
    const limitBytes = effectiveLimitBytes(takenBytes, this.#idleBytes, this.#upstream.stats());
    return this.#ledger.stats(takenBytes + this.#idleBytes, limitBytes);
  }

  dispose(): void {
    this.#ledger.dispose(() => this.trim());
  }

  /** An idle buffer of the request's class, else a new one. */
  #take(request: AllocationRequest): PooledBuffer | undefined {
    const needed = paddedBytes(request.sizeBytes);
    const rounded = sizeClassBytes(needed, this.#classesPerDoubling);
    // A request above the largest class goes up unchanged, for the upstream to reject.
    const classBytes = Math.max(needed, Math.min(rounded, this.#maxBufferBytes));
    const usage = request.usage ?? DEFAULT_BUFFER_USAGE;
    const key = `${request.kind}/${usage}/${classBytes}`;
    const idle = this.#idleByKey.get(key)?.pop();
    if (idle !== undefined) {
      this.#idleInOrder.delete(idle);
      this.#idleBytes -= idle.classBytes;
      return idle;
    }
    const upstreamAllocation = this.#takeUpstream({ ...request, sizeBytes: classBytes, usage });
    return upstreamAllocation && { upstreamAllocation, classBytes, key };
  }

  /** Takes a new buffer, giving back idle ones where there is no room for it. */
  #takeUpstream(request: AllocationRequest): Allocation | undefined {
    const direct = this.#upstream.tryAllocate(request);
    if (direct !== undefined || this.#idleBytes === 0) return direct;
    // First as little as could help, then everything.
    this.trim(request.sizeBytes);
    const second = this.#upstream.tryAllocate(request);
    if (second !== undefined || this.#idleBytes === 0) return second;
    this.trim();
    return this.#upstream.tryAllocate(request);
  }
}

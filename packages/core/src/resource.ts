/**
 * Memory resources: one small interface for everything that hands out device memory.
 *
 * Mental model: a stack. At the bottom `deviceResource` creates buffers; `pooledResource` and
 * `arenaResource` take buffers from the resource below and hand out reused ones or parts of one;
 * `limitedResource`, `countedResource` and `tracedResource` wrap a resource and change nothing but
 * the rule or the record they add. Any stack is again a `MemoryResource`.
 *
 * Bytes. live = bytes asked for and not freed. padding = bytes lost to rounding and alignment
 * around them. reserved = bytes taken from the layer below (live, padding, and idle memory kept for
 * reuse). Always: live + padding <= reserved, and live + padding <= limit.
 *
 * Ownership: a resource owns what it took from its upstream and gives it back; it never disposes
 * the upstream itself, because whoever created that disposes it.
 *
 * Rejected: `free` by offset or handle number. The allocation object is the handle, so that a
 * double free and a free at the wrong resource are found by identity.
 */
import { VramError } from './errors.js';

/** What memory is used for; every byte on the device belongs to exactly one kind. */
export type MemoryKind = 'weights' | 'kv' | 'activations' | 'gradients' | 'optimizer' | 'staging';

/** All memory kinds, in the order in which they are reported. */
export const MEMORY_KINDS: readonly MemoryKind[] = [
  'weights',
  'kv',
  'activations',
  'gradients',
  'optimizer',
  'staging',
];

/**
 * Buffer usage where a request names none: STORAGE | COPY_SRC | COPY_DST. Numbers instead of the
 * `GPUBufferUsage` global, which a runtime without a built-in WebGPU does not have.
 */
export const DEFAULT_BUFFER_USAGE: GPUBufferUsageFlags = 0x80 | 0x4 | 0x8;

/** A request for device memory. */
export interface AllocationRequest {
  /** Bytes wanted; an integer >= 0. Zero bytes still give a bindable allocation. */
  readonly sizeBytes: number;
  /** What the memory is for. */
  readonly kind: MemoryKind;
  /** Name shown in errors, traces and the driver's tools. */
  readonly label: string;
  /** WebGPU buffer usage flags. Default: {@link DEFAULT_BUFFER_USAGE}. */
  readonly usage?: GPUBufferUsageFlags;
}

/**
 * A range of a buffer, alive until it is freed at the resource that gave it.
 *
 * At least `sizeBytes` rounded up to a multiple of 4 (and at least 4) bytes may be bound from
 * `offsetBytes`. The buffer may hold other allocations: never destroy, map or clear all of it.
 */
export interface Allocation {
  /** The buffer that holds the range; owned by the resource. */
  readonly buffer: GPUBuffer;
  /** Start of the range, in bytes. */
  readonly offsetBytes: number;
  /** Bytes asked for. */
  readonly sizeBytes: number;
  /** What the memory is for. */
  readonly kind: MemoryKind;
  /** Name of the request. */
  readonly label: string;
}

/** Where the bytes of one resource are; a snapshot. */
export interface MemoryStats {
  /** Bytes asked for and not freed. */
  readonly liveBytes: number;
  /** Bytes lost to rounding and alignment around the live ones. */
  readonly paddingBytes: number;
  /** Bytes taken from the layer below: live, padding and idle memory kept for reuse. */
  readonly reservedBytes: number;
  /** Highest `reservedBytes` so far. */
  readonly peakReservedBytes: number;
  /**
   * The most that live and padding bytes of this resource could reach now: its own limit, or less
   * where a layer below has less room left. `Infinity` without a limit.
   */
  readonly limitBytes: number;
  /** Live allocations. */
  readonly allocationCount: number;
  /** Live bytes of each kind. */
  readonly liveBytesByKind: Readonly<Record<MemoryKind, number>>;
}

/**
 * Something that hands out device memory.
 *
 * Exhaustion is a value, a misuse is an error. A request that could succeed after something is
 * freed or a budget is raised gives `undefined`, with no state changed. A request that is malformed
 * or that no budget can help (negative size, unknown kind, larger than the device's largest buffer)
 * throws
 * `invalid-argument`.
 */
export interface MemoryResource {
  /**
   * Takes memory for `request`, or gives `undefined` where there is no room.
   * @throws VramError `invalid-argument` for a request that can never succeed, `disposed` after
   * {@link MemoryResource.dispose}.
   */
  tryAllocate(request: AllocationRequest): Allocation | undefined;
  /**
   * Gives back an allocation of this resource.
   * @throws VramError `invalid-argument` for one that this resource did not give or that was freed
   * already, `disposed` after {@link MemoryResource.dispose}.
   */
  free(allocation: Allocation): void;
  /** A snapshot of the bytes; also after disposal. */
  stats(): MemoryStats;
  /**
   * Gives everything back to the layer below; idempotent. The layer below is not disposed.
   * @throws VramError `invariant` listing labels where allocations are still live; nothing is freed
   * then, and the resource stays usable.
   */
  dispose(): void;
}

/**
 * The throwing twin of {@link MemoryResource.tryAllocate}.
 *
 * `freeBytes` counts what is neither live nor padding under the limit; where it is not below
 * `neededBytes`, no contiguous range was found or the driver refused, and `shortfallBytes` is 0.
 * @throws VramError `out-of-memory` with context `{ kind, label, neededBytes, freeBytes,
 * limitBytes, shortfallBytes }` where there is no room, and whatever `tryAllocate` throws.
 */
export function allocate(resource: MemoryResource, request: AllocationRequest): Allocation {
  const allocation = resource.tryAllocate(request);
  if (allocation !== undefined) return allocation;
  throw outOfMemory(resource.stats(), request);
}

/** Bytes that a request of `sizeBytes` takes at least: rounded up to 4, and never none. */
export function paddedBytes(sizeBytes: number): number {
  return Math.max(4, Math.ceil(sizeBytes / 4) * 4);
}

/** Builds the `out-of-memory` error of a request that found no room. */
function outOfMemory(stats: MemoryStats, request: AllocationRequest): VramError {
  const { kind, label } = request;
  const neededBytes = paddedBytes(request.sizeBytes);
  const limitBytes = stats.limitBytes;
  const freeBytes = Math.max(0, limitBytes - stats.liveBytes - stats.paddingBytes);
  const shortfallBytes = Math.max(0, neededBytes - freeBytes);
  const why =
    shortfallBytes > 0
      ? `short of ${shortfallBytes} B; free memory or raise the limit`
      : 'but no range or buffer of that size was to be had; free memory or split the request';
  return new VramError(
    'out-of-memory',
    `needed ${neededBytes} B of kind '${kind}' for '${label}', ` +
      `${freeBytes} B free of ${limitBytes} B, ${why}`,
    {
      context: { kind, label, neededBytes, freeBytes, limitBytes, shortfallBytes },
      retryable: true,
    },
  );
}

/**
 * A wrapper that counts: calls, distinct buffers, and peaks by kind.
 *
 * The counts prove the rule that steady state allocates nothing: read them after warm-up, run a
 * step, read them again. They are of what went through this wrapper; `stats()` is the upstream's.
 */
import type { MemoryKind, MemoryResource } from '../resource.js';
import { AllocationLedger, zeroByKind } from './ledger.js';

/** Counts since the resource was made; every number only grows. */
export interface AllocationCounts {
  /** Allocations that succeeded. */
  readonly allocations: number;
  /** Allocations that found no room. */
  readonly refusals: number;
  /** Frees. */
  readonly frees: number;
  /** Different `GPUBuffer`s seen; over a device resource, the buffers ever created. */
  readonly distinctBuffers: number;
  /** Highest live bytes. */
  readonly peakLiveBytes: number;
  /** Highest live bytes of each kind, each at its own moment. */
  readonly peakLiveBytesByKind: Readonly<Record<MemoryKind, number>>;
}

/** A {@link MemoryResource} that counts. */
export interface CountedResource extends MemoryResource {
  /** A snapshot of the counts. */
  counts(): AllocationCounts;
}

/** Wraps `upstream` and counts what goes through. */
export function countedResource(upstream: MemoryResource): CountedResource {
  const ledger = new AllocationLedger<void>('counted');
  // Weak, so that counting a destroyed buffer does not keep its wrapper object alive.
  const seen = new WeakSet<GPUBuffer>();
  const peakByKind = zeroByKind();
  let allocations = 0;
  let refusals = 0;
  let frees = 0;
  let distinctBuffers = 0;
  let peakLiveBytes = 0;

  return {
    tryAllocate(request) {
      ledger.assertUsable();
      const allocation = upstream.tryAllocate(request);
      if (allocation === undefined) {
        refusals += 1;
        return undefined;
      }
      ledger.add(allocation, allocation.sizeBytes, undefined);
      allocations += 1;
      if (!seen.has(allocation.buffer)) {
        seen.add(allocation.buffer);
        distinctBuffers += 1;
      }
      const { kind } = allocation;
      peakLiveBytes = Math.max(peakLiveBytes, ledger.liveBytes);
      peakByKind[kind] = Math.max(peakByKind[kind], ledger.liveBytesOf(kind));
      return allocation;
    },
    free(allocation) {
      ledger.heldBy(allocation);
      upstream.free(allocation);
      ledger.remove(allocation);
      frees += 1;
    },
    stats: () => upstream.stats(),
    dispose: () => ledger.dispose(),
    counts: () => ({
      allocations,
      refusals,
      frees,
      distinctBuffers,
      peakLiveBytes,
      peakLiveBytesByKind: { ...peakByKind },
    }),
  };
}

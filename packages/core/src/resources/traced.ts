/**
 * A wrapper that tells a sink about every allocation and every free that succeeded.
 *
 * It adds one object per call and changes no behaviour. The totals in an event are of what went
 * through this wrapper; `stats()` is the upstream's.
 */
import type { Allocation, MemoryResource } from '../resource.js';
import type { Clock, MemoryEvent, TraceSink } from '../tracing.js';
import { AllocationLedger } from './ledger.js';

/** Options of {@link tracedResource}. */
export interface TracedResourceOptions {
  /** The clock of the events, milliseconds: `() => performance.now()` fits. */
  readonly now: Clock;
}

/** Wraps `upstream` so that `sink` receives one event per allocation and per free. */
export function tracedResource(
  upstream: MemoryResource,
  sink: TraceSink,
  { now }: TracedResourceOptions,
): MemoryResource {
  const ledger = new AllocationLedger<void>('traced');

  function emit(type: MemoryEvent['type'], { kind, label, sizeBytes }: Allocation): void {
    const liveBytesByKind = ledger.liveByKind();
    const { liveBytes } = ledger;
    sink({ type, timeMs: now(), kind, label, sizeBytes, liveBytes, liveBytesByKind });
  }

  return {
    tryAllocate(request) {
      ledger.assertUsable();
      const allocation = upstream.tryAllocate(request);
      if (allocation === undefined) return undefined;
      ledger.add(allocation, allocation.sizeBytes, undefined);
      emit('allocate', allocation);
      return allocation;
    },
    free(allocation) {
      ledger.heldBy(allocation);
      upstream.free(allocation);
      ledger.remove(allocation);
      emit('free', allocation);
    },
    stats: () => upstream.stats(),
    dispose: () => ledger.dispose(),
  };
}

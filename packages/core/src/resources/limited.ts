/**
 * A wrapper with a hard byte limit that asks for memory back before it says no.
 *
 * What counts against the limit is what goes through this wrapper, each request rounded up to 4
 * bytes. Directly above `deviceResource` that is exactly the device's bytes: one byte less than needed
 * is refused before the driver is called. Above a pool it limits what is handed out, and the pool's own
 * padding and idle buffers come on top; to bound device bytes put the limit below the pool.
 *
 * Under pressure the listeners are asked in the order of registration, each for what is still
 * missing, for a bounded number of rounds. The ledger decides whether there is room, not the number
 * that a listener returns; that number only says whether asking again makes sense. A listener that
 * frees into a pool above the limit must be followed by one that trims the pool. While listeners run,
 * allocations made by them are served or refused without asking anyone again.
 */
import { assertArgument, checkInteger } from '../assert.js';
import {
  paddedBytes,
  type Allocation,
  type AllocationRequest,
  type MemoryResource,
} from '../resource.js';
import { AllocationLedger, checkRequest, effectiveLimitBytes } from './ledger.js';

/**
 * Frees memory on request: evicts, offloads, drops caches.
 * @param shortfallBytes Bytes that are missing.
 * @param request The request that needs them.
 * @returns Bytes freed; 0 where there was nothing to free.
 */
export type PressureListener = (shortfallBytes: number, request: AllocationRequest) => number;

/** Options of {@link limitedResource}. */
export interface LimitedResourceOptions {
  /** Most bytes at once, each request rounded up to 4; an integer, or `Infinity` for no limit. */
  readonly limitBytes: number;
  /** How often all listeners are asked for one request. Default: 3. */
  readonly maxPressureRounds?: number;
}

/** A {@link MemoryResource} with a limit and listeners that can make room. */
export interface LimitedResource extends MemoryResource {
  /** Adds a listener behind the others. @returns A function that removes it; idempotent. */
  onPressure(listener: PressureListener): () => void;
}

/** More listeners than this are a leak of registrations. */
const MAX_LISTENERS = 1024;

/** Wraps `upstream` so that at most `limitBytes` are out at once. */
export function limitedResource(
  upstream: MemoryResource,
  options: LimitedResourceOptions,
): LimitedResource {
  const limitBytes =
    options.limitBytes === Number.POSITIVE_INFINITY
      ? options.limitBytes
      : checkInteger('limitBytes', options.limitBytes);
  const maxRounds = checkInteger('maxPressureRounds', options.maxPressureRounds ?? 3, 0, 1000);
  const ledger = new AllocationLedger<void>('limited');
  // Wrapped, so that the same function registered twice is two registrations.
  const listeners = new Set<{ readonly ask: PressureListener }>();
  // Bytes promised to requests that are with the upstream right now.
  let promisedBytes = 0;
  let asking = false;

  const missingBytes = (bytes: number): number =>
    ledger.takenBytes + promisedBytes + bytes - limitBytes;

  /** Promises the bytes, asks the upstream, and takes the promise back whatever comes of it. */
  function takeUpstream(request: AllocationRequest, bytes: number): Allocation | undefined {
    promisedBytes += bytes;
    try {
      return upstream.tryAllocate(request);
    } finally {
      promisedBytes -= bytes;
    }
  }

  /** Asks every listener once, until nothing is missing. @returns Whether anything was freed. */
  function relieve(request: AllocationRequest, bytes: number, upstreamRefused: boolean): boolean {
    if (asking) return false;
    asking = true;
    let freedBytes = 0;
    try {
      for (const { ask } of [...listeners]) {
        // Where the upstream refused, the limit has room and only the upstream knows what is
        // missing: ask for the whole request.
        const shortfall = upstreamRefused ? bytes - freedBytes : missingBytes(bytes);
        if (shortfall <= 0) break;
        const before = ledger.takenBytes;
        freedBytes += Math.max(0, ask(shortfall, request), before - ledger.takenBytes);
      }
    } finally {
      asking = false;
    }
    return freedBytes > 0;
  }

  function tryAllocate(request: AllocationRequest): Allocation | undefined {
    checkRequest(request);
    const bytes = paddedBytes(request.sizeBytes);
    for (let round = 0; ; round += 1) {
      ledger.assertUsable();
      const fits = missingBytes(bytes) <= 0;
      const allocation = fits ? takeUpstream(request, bytes) : undefined;
      if (allocation !== undefined) {
        ledger.add(allocation, bytes, undefined);
        ledger.notePeak(ledger.takenBytes);
        return allocation;
      }
      if (bytes > limitBytes || round === maxRounds) return undefined;
      if (!relieve(request, bytes, fits)) return undefined;
    }
  }

  return {
    tryAllocate,
    free(allocation) {
      ledger.heldBy(allocation);
      upstream.free(allocation);
      ledger.remove(allocation);
    },
    stats() {
      const reachable = effectiveLimitBytes(ledger.takenBytes, 0, upstream.stats());
      return ledger.stats(ledger.takenBytes, Math.min(limitBytes, reachable));
    },
    dispose: () => ledger.dispose(() => listeners.clear()),
    onPressure(ask) {
      ledger.assertUsable();
      assertArgument(listeners.size < MAX_LISTENERS, `more than ${MAX_LISTENERS} listeners`);
      const registration = { ask };
      listeners.add(registration);
      return () => void listeners.delete(registration);
    },
  };
}

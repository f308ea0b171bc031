/**
 * A wrapper with a hard byte limit that asks for memory back before it says no.
 *
 * What counts against the limit is what goes through this wrapper, each request rounded up to 4
 * bytes. Directly above `deviceResource` that is exactly the device's bytes: one byte less than
 * needed is refused before the driver is called. Above a pool it limits what is handed out, and the
 * pool's own padding and idle buffers come on top; to bound device bytes put the limit below the
 * pool.
 *
 * Under pressure the listeners are asked in the order of registration, each for what is still
 * missing, for a bounded number of rounds. The ledger decides whether there is room, not the number
 * that a listener returns; that number only says whether asking again makes sense. A listener that
 * frees into a pool above the limit must be followed by one that trims the pool. While listeners
 * run, allocations made by them are served or refused without asking anyone again.
 */
import { assertArgument, checkInteger } from '../assert.js';
import {
  paddedBytes,
  type Allocation,
  type AllocationRequest,
  type MemoryResource,
  type MemoryStats,
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
  return new Limit(upstream, options);
}

class Limit implements LimitedResource {
  readonly #upstream: MemoryResource;
  readonly #limitBytes: number;
  readonly #maxRounds: number;
  readonly #ledger = new AllocationLedger<void>('limited');
  // Wrapped, so that the same function registered twice is two registrations.
  readonly #listeners = new Set<{ readonly ask: PressureListener }>();
  /** Bytes promised to requests that are with the upstream right now. */
  #promisedBytes = 0;
  #asking = false;

  constructor(upstream: MemoryResource, options: LimitedResourceOptions) {
    const { limitBytes, maxPressureRounds = 3 } = options;
    this.#upstream = upstream;
    this.#limitBytes = limitBytes === Infinity ? Infinity : checkInteger('limitBytes', limitBytes);
    this.#maxRounds = checkInteger('maxPressureRounds', maxPressureRounds, 0, 1000);
  }

  tryAllocate(request: AllocationRequest): Allocation | undefined {
    checkRequest(request);
    const bytes = paddedBytes(request.sizeBytes);
    for (let round = 0; ; round += 1) {
      this.#ledger.assertUsable();
      const fits = this.#missingBytes(bytes) <= 0;
      const allocation = fits ? this.#takeUpstream(request, bytes) : undefined;
      if (allocation !== undefined) {
        this.#ledger.add(allocation, bytes, undefined);
        this.#ledger.notePeak(this.#ledger.takenBytes);
        return allocation;
      }
      if (bytes > this.#limitBytes || round === this.#maxRounds) return undefined;
      if (!this.#relieve(request, bytes, fits)) return undefined;
    }
  }

  free(allocation: Allocation): void {
    this.#ledger.heldBy(allocation);
    this.#upstream.free(allocation);
    this.#ledger.remove(allocation);
  }

  stats(): MemoryStats {
    const { takenBytes } = this.#ledger;
    const reachable = effectiveLimitBytes(takenBytes, 0, this.#upstream.stats());
    return this.#ledger.stats(takenBytes, Math.min(this.#limitBytes, reachable));
  }

  dispose(): void {
    this.#ledger.dispose(() => this.#listeners.clear());
  }

  onPressure(ask: PressureListener): () => void {
    this.#ledger.assertUsable();
    assertArgument(this.#listeners.size < MAX_LISTENERS, `more than ${MAX_LISTENERS} listeners`);
    const registration = { ask };
    this.#listeners.add(registration);
    return () => void this.#listeners.delete(registration);
  }

  #missingBytes(bytes: number): number {
    return this.#ledger.takenBytes + this.#promisedBytes + bytes - this.#limitBytes;
  }

  /** Promises the bytes, asks the upstream, and takes the promise back whatever comes of it. */
  #takeUpstream(request: AllocationRequest, bytes: number): Allocation | undefined {
    this.#promisedBytes += bytes;
    try {
      return this.#upstream.tryAllocate(request);
    } finally {
      this.#promisedBytes -= bytes;
    }
  }

  /** Asks every listener once, until nothing is missing. @returns Whether anything was freed. */
  #relieve(request: AllocationRequest, bytes: number, upstreamRefused: boolean): boolean {
    if (this.#asking) return false;
    this.#asking = true;
    let freedBytes = 0;
    try {
      for (const { ask } of [...this.#listeners]) {
        // Where the upstream refused, the limit has room and only the upstream knows what is
        // missing: ask for the whole request.
        const shortfall = upstreamRefused ? bytes - freedBytes : this.#missingBytes(bytes);
        if (shortfall <= 0) break;
        const before = this.#ledger.takenBytes;
        const claimed = ask(shortfall, request);
        freedBytes += Math.max(0, claimed, before - this.#ledger.takenBytes);
      }
    } finally {
      this.#asking = false;
    }
    return freedBytes > 0;
  }
}

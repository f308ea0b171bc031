/**
 * The bookkeeping that every memory resource shares: which allocations are live, and their bytes.
 *
 * Each resource owns one ledger. An entry maps an allocation, by identity, to the bytes it takes
 * (asked for and padding) and to `held`: whatever the resource must give back when it is freed.
 *
 * Invariants: the sums equal the entries; padding is never negative; nothing is added or removed
 * after disposal.
 */
import { assertArgument, assertInvariant, checkInteger, fail } from '../assert.js';
import {
  MEMORY_KINDS,
  type Allocation,
  type AllocationRequest,
  type MemoryKind,
  type MemoryStats,
} from '../resource.js';

interface Entry<Held> {
  readonly takenBytes: number;
  readonly held: Held;
}

/** Labels that a leak message lists before it stops. */
const LISTED_LABELS = 20;

/** No bytes of any kind. */
export function zeroByKind(): Record<MemoryKind, number> {
  return { weights: 0, kv: 0, activations: 0, gradients: 0, optimizer: 0, staging: 0 };
}

/**
 * Checks the parts of a request that no resource can make good.
 * @throws VramError `invalid-argument`.
 */
export function checkRequest(request: AllocationRequest): void {
  checkInteger('sizeBytes', request.sizeBytes);
  assertArgument(MEMORY_KINDS.includes(request.kind), `unknown memory kind '${request.kind}'`, {
    kind: request.kind,
    label: request.label,
  });
  if (request.usage !== undefined) checkInteger('usage', request.usage, 1, 0xffff_ffff);
}

/**
 * The most that a resource's taken bytes could reach now: what it has, what it keeps idle, and what
 * its upstream still has room for.
 */
export function effectiveLimitBytes(
  takenBytes: number,
  idleBytes: number,
  upstream: MemoryStats,
): number {
  const upstreamFree = upstream.limitBytes - upstream.liveBytes - upstream.paddingBytes;
  return takenBytes + idleBytes + Math.max(0, upstreamFree);
}

/**
 * What disposal checks.
 * @throws VramError `invariant` naming what is still live.
 */
export function assertNoneLive(owner: string, live: readonly Allocation[]): void {
  if (live.length === 0) return;
  const labels = live.slice(0, LISTED_LABELS).map(({ label }) => label);
  const more = live.length - labels.length;
  const liveBytes = live.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  fail(
    'invariant',
    `${owner} was disposed with ${live.length} live allocations (${liveBytes} B): ` +
      `${labels.join(', ')}${more > 0 ? `, and ${more} more` : ''}`,
    { count: live.length, liveBytes, labels },
  );
}

/** Live allocations of one resource, their bytes by kind, and the peak of what it reserved. */
export class AllocationLedger<Held> {
  readonly #name: string;
  readonly #entries = new Map<Allocation, Entry<Held>>();
  readonly #liveByKind = zeroByKind();
  #liveBytes = 0;
  #takenBytes = 0;
  #peakReservedBytes = 0;
  #disposed = false;

  /** @param name The resource's name in error messages. */
  constructor(name: string) {
    this.#name = name;
  }

  /** Bytes asked for and not freed. */
  get liveBytes(): number {
    return this.#liveBytes;
  }

  /** Live bytes and the padding around them. */
  get takenBytes(): number {
    return this.#takenBytes;
  }

  /** Live bytes of one kind. */
  liveBytesOf(kind: MemoryKind): number {
    return this.#liveByKind[kind];
  }

  /** Live allocations. */
  get count(): number {
    return this.#entries.size;
  }

  /** Whether {@link AllocationLedger.dispose} succeeded. */
  get isDisposed(): boolean {
    return this.#disposed;
  }

  /** @throws VramError `disposed` after {@link AllocationLedger.dispose}. */
  assertUsable(): void {
    if (this.#disposed) fail('disposed', `the ${this.#name} resource was disposed`);
  }

  /** Records a new allocation. */
  add(allocation: Allocation, takenBytes: number, held: Held): void {
    assertInvariant(!this.#entries.has(allocation), `'${allocation.label}' was given twice`);
    assertInvariant(takenBytes >= allocation.sizeBytes, `'${allocation.label}' took too little`);
    this.#entries.set(allocation, { takenBytes, held });
    this.#liveBytes += allocation.sizeBytes;
    this.#takenBytes += takenBytes;
    this.#liveByKind[allocation.kind] += allocation.sizeBytes;
  }

  /**
   * What an allocation holds, without a change: call it before anything that can throw.
   * @throws VramError `invalid-argument` for an allocation of another resource or a double free.
   */
  heldBy(allocation: Allocation): Held {
    this.assertUsable();
    const entry = this.#entries.get(allocation);
    if (entry !== undefined) return entry.held;
    return fail(
      'invalid-argument',
      `'${allocation.label}' (${allocation.sizeBytes} B) is not live in the ${this.#name} ` +
        'resource: it was freed already or belongs to another resource',
      { label: allocation.label, kind: allocation.kind, sizeBytes: allocation.sizeBytes },
    );
  }

  /** Removes an allocation; the same errors as {@link AllocationLedger.heldBy}. */
  remove(allocation: Allocation): Held {
    const held = this.heldBy(allocation);
    const entry = this.#entries.get(allocation);
    assertInvariant(entry !== undefined, 'an entry vanished');
    this.#entries.delete(allocation);
    this.#liveBytes -= allocation.sizeBytes;
    this.#takenBytes -= entry.takenBytes;
    this.#liveByKind[allocation.kind] -= allocation.sizeBytes;
    return held;
  }

  /** Notes what the resource has reserved now, for the peak. */
  notePeak(reservedBytes: number): void {
    if (reservedBytes > this.#peakReservedBytes) this.#peakReservedBytes = reservedBytes;
  }

  /** Live bytes of each kind; a copy. */
  liveByKind(): Record<MemoryKind, number> {
    return { ...this.#liveByKind };
  }

  /** A snapshot for {@link MemoryResource.stats}. */
  stats(reservedBytes: number, limitBytes: number): MemoryStats {
    this.notePeak(reservedBytes);
    return {
      liveBytes: this.#liveBytes,
      paddingBytes: this.#takenBytes - this.#liveBytes,
      reservedBytes,
      peakReservedBytes: this.#peakReservedBytes,
      limitBytes,
      allocationCount: this.#entries.size,
      liveBytesByKind: this.liveByKind(),
    };
  }

  /**
   * Marks the ledger disposed, after `release` gave back what the resource holds; idempotent.
   * @throws VramError `invariant` naming what is still live; the ledger stays usable then.
   */
  dispose(release?: () => void): void {
    if (this.#disposed) return;
    assertNoneLive(`the ${this.#name} resource`, [...this.#entries.keys()]);
    release?.();
    this.#disposed = true;
  }

  /** Recomputes every sum from the entries. @throws VramError `invariant` where one differs. */
  check(): void {
    const byKind = zeroByKind();
    let taken = 0;
    for (const [allocation, entry] of this.#entries) {
      byKind[allocation.kind] += allocation.sizeBytes;
      taken += entry.takenBytes;
    }
    const live = MEMORY_KINDS.reduce((sum, kind) => sum + byKind[kind], 0);
    assertInvariant(live === this.#liveBytes, `live bytes ${this.#liveBytes}, entries ${live}`);
    assertInvariant(taken === this.#takenBytes, `taken bytes ${this.#takenBytes}, got ${taken}`);
    for (const kind of MEMORY_KINDS) {
      assertInvariant(byKind[kind] === this.#liveByKind[kind], `bytes of ${kind} differ`);
    }
  }
}

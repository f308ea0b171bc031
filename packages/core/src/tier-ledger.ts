/**
 * The bytes of one tier for {@link Residency}: what is resident, incoming and pinned, and the
 * policy that is told of it. It knows no objects, only the copies that it is handed.
 */
import { assertInvariant, checkInteger } from './assert.js';
import type { ReplacementPolicy, ResidentSize } from './replacement.js';

/**
 * State of one object in one tier. `loading` comes from a farther tier, `storing` from a nearer
 * one; both take room and cannot be read.
 */
export type CopyState = 'absent' | 'loading' | 'resident' | 'storing';

/** One object in one tier. */
export interface Copy {
  state: CopyState;
  /** Pins by callers. */
  pins: number;
  /** Moves in flight that read the copy. */
  readers: number;
}

/** Bytes of one tier. */
export interface TierUsage {
  readonly budgetBytes: number;
  /** Bytes of copies that can be read. */
  readonly residentBytes: number;
  /** Bytes reserved for moves in flight. */
  readonly incomingBytes: number;
  /** Resident bytes that cannot be dropped now. */
  readonly pinnedBytes: number;
  /** Resident copies. */
  readonly residentCount: number;
}

/** Who holds a resident copy: callers and moves. */
export function holders(copy: Copy): number {
  return copy.pins + copy.readers;
}

/** Bytes and policy of one tier. */
export class TierLedger<Id, Tier extends string> {
  readonly name: Tier;
  /** Place in the order of tiers; 0 is the nearest. */
  readonly index: number;
  readonly policy: ReplacementPolicy<Id>;
  readonly #budgetBytes: number;
  #residentBytes = 0;
  #incomingBytes = 0;
  #pinnedBytes = 0;
  #residentCount = 0;

  constructor(name: Tier, index: number, budgetBytes: number, policy: ReplacementPolicy<Id>) {
    this.name = name;
    this.index = index;
    this.policy = policy;
    this.#budgetBytes =
      budgetBytes === Infinity ? Infinity : checkInteger(`budgetBytes of ${name}`, budgetBytes);
  }

  /** A snapshot. */
  usage(): TierUsage {
    return {
      budgetBytes: this.#budgetBytes,
      residentBytes: this.#residentBytes,
      incomingBytes: this.#incomingBytes,
      pinnedBytes: this.#pinnedBytes,
      residentCount: this.#residentCount,
    };
  }

  /** Room under the budget. */
  get freeBytes(): number {
    return this.#budgetBytes - this.#residentBytes - this.#incomingBytes;
  }

  /** Bytes that could be dropped now. */
  get unpinnedBytes(): number {
    return this.#residentBytes - this.#pinnedBytes;
  }

  /** Takes room for a copy that is on its way. */
  expect(copy: Copy, sizeBytes: number, state: 'loading' | 'storing'): void {
    assertInvariant(copy.state === 'absent', `a ${copy.state} copy is expected in ${this.name}`);
    copy.state = state;
    this.#incomingBytes += sizeBytes;
    assertInvariant(this.freeBytes >= 0, `${this.name} is over its budget`);
  }

  /** Gives the room of an expected copy back. */
  cancel(copy: Copy, sizeBytes: number): void {
    assertInvariant(copy.state !== 'resident', `a resident copy is cancelled in ${this.name}`);
    copy.state = 'absent';
    this.#incomingBytes -= sizeBytes;
    assertInvariant(this.#incomingBytes >= 0, `${this.name} cancels what it did not expect`);
  }

  /** Makes a copy resident. */
  admit(id: Id, copy: Copy, { sizeBytes, reloadCost }: ResidentSize): void {
    assertInvariant(copy.state === 'absent', `a ${copy.state} copy is admitted in ${this.name}`);
    copy.state = 'resident';
    this.#residentBytes += sizeBytes;
    this.#residentCount += 1;
    assertInvariant(this.freeBytes >= 0, `${this.name} is over its budget`);
    this.policy.inserted(id, { sizeBytes, reloadCost });
  }

  /** Makes a resident copy absent. */
  dismiss(id: Id, copy: Copy, sizeBytes: number, reason: 'capacity' | 'explicit'): void {
    assertInvariant(copy.state === 'resident' && holders(copy) === 0, `'${String(id)}' is held`);
    copy.state = 'absent';
    this.#residentBytes -= sizeBytes;
    this.#residentCount -= 1;
    this.policy.removed(id, reason);
  }

  /** Adds a holder to a resident copy. */
  hold(copy: Copy, sizeBytes: number, as: 'pins' | 'readers'): void {
    if (holders(copy) === 0) this.#pinnedBytes += sizeBytes;
    copy[as] += 1;
  }

  /** Takes a holder off. */
  letGo(copy: Copy, sizeBytes: number, as: 'pins' | 'readers'): void {
    assertInvariant(copy[as] > 0, `no ${as} to take back in ${this.name}`);
    copy[as] -= 1;
    if (holders(copy) === 0) this.#pinnedBytes -= sizeBytes;
  }

  /** Recomputes the sums. @throws VramError `invariant` where one differs. */
  check(copies: Iterable<readonly [Copy, number]>): void {
    const sum = { residentBytes: 0, incomingBytes: 0, pinnedBytes: 0, residentCount: 0 };
    for (const [copy, sizeBytes] of copies) {
      const isResident = copy.state === 'resident';
      assertInvariant(
        isResident || holders(copy) === 0,
        `a copy is held that is not in ${this.name}`,
      );
      if (isResident) sum.residentBytes += sizeBytes;
      else if (copy.state !== 'absent') sum.incomingBytes += sizeBytes;
      if (isResident) sum.residentCount += 1;
      if (holders(copy) > 0) sum.pinnedBytes += sizeBytes;
    }
    assertInvariant(sum.residentBytes === this.#residentBytes, `resident bytes of ${this.name}`);
    assertInvariant(sum.incomingBytes === this.#incomingBytes, `incoming bytes of ${this.name}`);
    assertInvariant(sum.pinnedBytes === this.#pinnedBytes, `pinned bytes of ${this.name}`);
    assertInvariant(sum.residentCount === this.#residentCount, `resident count of ${this.name}`);
    assertInvariant(this.freeBytes >= 0, `${this.name} is over its budget`);
  }
}

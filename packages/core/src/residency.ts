/**
 * What is where: one pure state machine for everything that can be on the device, on the host or in
 * storage (KV blocks, experts, layer weights, optimizer subgroups). It moves no bytes; it says
 * which moves are possible, reserves room for them, and keeps what a move needs from being dropped.
 *
 * Mental model: tiers in order, the nearest (fastest, smallest) first. Each object has at most one
 * copy per tier, and each copy is in one state:
 *
 *     absent --prepareMove from a farther tier--> loading --complete--> resident
 *     absent --prepareMove from a nearer tier---> storing --complete--> resident
 *     resident --drop--> absent
 *
 * A move copies: its source stays resident, pinned until the move is complete. Loading and storing
 * copies take room and cannot be read. A failed move gives the room back and leaves no trace, which
 * is why it never evicts: {@link Residency.planRoom} names victims first, and the caller drops
 * each, or moves it farther and then drops it.
 *
 * Invariants ({@link Residency.check}): per tier, resident and incoming bytes stay within the
 * budget; every object has a resident copy; a pinned copy is resident; pins of moves equal the
 * moves in flight; the replacement policy of a tier holds exactly its resident copies.
 *
 * Nothing is lost: the last copy of an object cannot be dropped, unless the object is `recreatable`
 * (a KV block whose tokens are known); it is then forgotten. After a change in place,
 * {@link Residency.changed} drops the copies that no longer agree.
 *
 * Rejected: evicting inside `prepareMove`. The victim's bytes would be overwritten before the move
 * is known to succeed. Complexity: every call is constant in the number of objects, but for
 * planRoom, which is linear in the victims it names, and what the policy adds.
 */
import { assertArgument, assertInvariant, checkInteger, fail } from './assert.js';
import type { ReplacementPolicy, ResidentSize } from './replacement.js';
import { holders, TierLedger, type Copy, type CopyState, type TierUsage } from './tier-ledger.js';

/** Identifies an object: a block id, an expert's number, a name. */
export type ResidentId = string | number;

/** One level of memory. */
export interface TierOptions<Id extends ResidentId, Tier extends string> {
  /** Name, such as 'device', 'host' or 'storage'. */
  readonly name: Tier;
  /** Most bytes of resident and incoming copies; `Infinity` for no limit. */
  readonly budgetBytes: number;
  /** Who goes first when room is needed; not shared with another tier. */
  readonly policy: ReplacementPolicy<Id>;
}

/** Options of {@link Residency}. */
export interface ResidencyOptions<Id extends ResidentId, Tier extends string> {
  /** At most 8 tiers, the nearest first. */
  readonly tiers: readonly TierOptions<Id, Tier>[];
}

/** Options of {@link Residency.tryAdd}. */
export interface ResidentOptions<Tier extends string> {
  /** Bytes of each copy. */
  readonly sizeBytes: number;
  /** Where the first copy is. */
  readonly tier: Tier;
  /** Whether the last copy may be dropped, because its owner can make it anew. Default: false. */
  readonly recreatable?: boolean;
  /** See {@link ResidentSize}. Default: `sizeBytes`. */
  readonly reloadCost?: number;
}

/** A move in flight; plain data, identified by the object itself. */
export interface Move<Id extends ResidentId, Tier extends string> {
  readonly id: Id;
  /** Where to read; pinned until the move is complete. */
  readonly from: Tier;
  /** Where to write. */
  readonly to: Tier;
  readonly sizeBytes: number;
}

/** A copy that must go to make room. */
export interface Victim<Id extends ResidentId> {
  readonly id: Id;
  readonly sizeBytes: number;
  /**
   * Whether it is the only copy of an object that is not recreatable: move it before dropping it.
   */
  readonly isLastCopy: boolean;
}

interface Entry extends ResidentSize {
  readonly recreatable: boolean;
  /** One per tier, in order. */
  readonly copies: readonly Copy[];
}

const MAX_TIERS = 8;

/** Which object is in which tier; see the notes of this module. */
export class Residency<Id extends ResidentId, Tier extends string> {
  readonly #tiers: readonly TierLedger<Id, Tier>[];
  readonly #entries = new Map<Id, Entry>();
  readonly #moves = new Set<Move<Id, Tier>>();

  constructor(options: ResidencyOptions<Id, Tier>) {
    const { tiers } = options;
    checkInteger('count of tiers', tiers.length, 1, MAX_TIERS);
    assertArgument(
      new Set(tiers.map(({ name }) => name)).size === tiers.length &&
        new Set(tiers.map(({ policy }) => policy)).size === tiers.length,
      'each tier needs a name and a policy of its own',
    );
    this.#tiers = tiers.map(
      ({ name, budgetBytes, policy }, index) => new TierLedger(name, index, budgetBytes, policy),
    );
  }

  /** Objects known. */
  get size(): number {
    return this.#entries.size;
  }

  /** Objects known, in the order of their {@link Residency.tryAdd}. */
  ids(): IterableIterator<Id> {
    return this.#entries.keys();
  }

  /** Whether the object is known; it then has a resident copy somewhere. */
  has(id: Id): boolean {
    return this.#entries.has(id);
  }

  /** State of an object in a tier; `absent` for an unknown object. */
  state(id: Id, tier: Tier): CopyState {
    const { index } = this.#tier(tier);
    return this.#entries.get(id)?.copies[index]?.state ?? 'absent';
  }

  /** The nearest tier with a resident copy, or `undefined` for an unknown object. */
  nearest(id: Id): Tier | undefined {
    const copies = this.#entries.get(id)?.copies;
    return this.#tiers.find(({ index }) => copies?.[index]?.state === 'resident')?.name;
  }

  /** Bytes of a tier. */
  usage(tier: Tier): TierUsage {
    return this.#tier(tier).usage();
  }

  /**
   * Registers an object whose bytes are in `tier`, or will be once this returns true.
   * @returns false, with nothing changed, where the tier has no room.
   * @throws VramError `invalid-argument` where the object is known or an option is out of range.
   */
  tryAdd(id: Id, options: ResidentOptions<Tier>): boolean {
    const tier = this.#tier(options.tier);
    const sizeBytes = checkInteger('sizeBytes', options.sizeBytes);
    const { recreatable = false, reloadCost = sizeBytes } = options;
    assertArgument(!this.#entries.has(id), `'${id}' is known already`, { id });
    assertArgument(reloadCost >= 0, `reloadCost ${reloadCost} of '${id}' is negative`, { id });
    if (tier.freeBytes < sizeBytes) return false;
    const copies = this.#tiers.map((): Copy => ({ state: 'absent', pins: 0, readers: 0 }));
    const entry: Entry = { sizeBytes, reloadCost, recreatable, copies };
    this.#entries.set(id, entry);
    tier.admit(id, copyAt(entry, tier.index), entry);
    return true;
  }

  /**
   * Forgets an object and all its copies.
   * @throws VramError `invalid-argument` where it is unknown, pinned or moving.
   */
  remove(id: Id): void {
    const entry = this.#entry(id);
    for (const { name, index } of this.#tiers) assertIdle(id, name, copyAt(entry, index));
    for (const tier of this.#tiers) {
      const copy = copyAt(entry, tier.index);
      if (copy.state === 'resident') tier.dismiss(id, copy, entry.sizeBytes, 'explicit');
    }
    this.#entries.delete(id);
  }

  /**
   * Tells the tier's policy that a resident copy was used.
   * @throws VramError `invalid-argument`.
   */
  touch(id: Id, tier: Tier): void {
    this.#resident(id, tier);
    this.#tier(tier).policy.touched(id);
  }

  /** Keeps a resident copy from being dropped; counted. @throws VramError `invalid-argument`. */
  pin(id: Id, tier: Tier): void {
    const copy = this.#resident(id, tier);
    this.#tier(tier).hold(copy, this.#entry(id).sizeBytes, 'pins');
  }

  /** Takes one {@link Residency.pin} back. @throws VramError `invalid-argument` without one. */
  unpin(id: Id, tier: Tier): void {
    const copy = this.#resident(id, tier);
    assertArgument(copy.pins > 0, `'${id}' is not pinned in ${tier}`, { id, tier });
    this.#tier(tier).letGo(copy, this.#entry(id).sizeBytes, 'pins');
  }

  /**
   * Begins to copy an object into a tier: reserves the room and pins the source.
   * @param from Default: the nearest tier with a resident copy.
   * @returns `undefined`, with nothing changed, where the tier has no room; see
   * {@link Residency.planRoom}.
   * @throws VramError `invalid-argument` where the object is unknown, the source not resident, or
   * the destination not absent: look at {@link Residency.state} first.
   */
  prepareMove(
    id: Id,
    to: Tier,
    from: Tier | undefined = this.nearest(id),
  ): Move<Id, Tier> | undefined {
    const entry = this.#entry(id);
    const target = this.#tier(to);
    const arriving = copyAt(entry, target.index);
    const { sizeBytes } = entry;
    assertArgument(arriving.state === 'absent', `'${id}' is ${arriving.state} in ${to} already`, {
      id,
      to,
      state: arriving.state,
    });
    assertInvariant(from !== undefined, `'${id}' has no resident copy`);
    const source = this.#resident(id, from);
    if (target.freeBytes < sizeBytes) return undefined;
    const fromTier = this.#tier(from);
    fromTier.hold(source, sizeBytes, 'readers');
    target.expect(arriving, sizeBytes, fromTier.index > target.index ? 'loading' : 'storing');
    const move = Object.freeze({ id, from, to, sizeBytes });
    this.#moves.add(move);
    return move;
  }

  /**
   * Ends a move. A success makes the destination resident; a failure makes it absent again. Either
   * way the source is unpinned and stays resident.
   * @throws VramError `invalid-argument` for a move that is not in flight.
   */
  complete(move: Move<Id, Tier>, outcome: 'succeeded' | 'failed'): void {
    const { id, from, to, sizeBytes } = move;
    assertArgument(this.#moves.delete(move), `the move of '${id}' to ${to} is not in flight`, {
      id,
      to,
    });
    const entry = this.#entry(id);
    const target = this.#tier(to);
    this.#tier(from).letGo(this.#resident(id, from), sizeBytes, 'readers');
    const arriving = copyAt(entry, target.index);
    target.cancel(arriving, sizeBytes);
    if (outcome === 'succeeded') target.admit(id, arriving, entry);
  }

  /**
   * Drops a resident copy. Dropping the last copy of a recreatable object forgets the object.
   * @param reason What the policy is told. Default: 'explicit'.
   * @throws VramError `invalid-argument` where the copy is not resident, is pinned, is read by a
   * move, or is the last one of an object that is not recreatable.
   */
  drop(id: Id, tier: Tier, reason: 'capacity' | 'explicit' = 'explicit'): void {
    const copy = this.#resident(id, tier);
    const entry = this.#entry(id);
    const isLast = residentCopies(entry) === 1;
    assertArgument(holders(copy) === 0, `'${id}' is pinned in ${tier}`, { id, tier });
    assertArgument(!isLast || entry.recreatable, `${tier} has the last copy of '${id}'`, {
      id,
      tier,
    });
    this.#tier(tier).dismiss(id, copy, entry.sizeBytes, reason);
    if (isLast) this.#entries.delete(id);
  }

  /**
   * Says that the copy in `tier` was changed in place: every other copy is stale and is dropped.
   * @throws VramError `invalid-argument` where the copy is not resident, a move of the object is in
   * flight, or another copy is pinned.
   */
  changed(id: Id, tier: Tier): void {
    const changedCopy = this.#resident(id, tier);
    const entry = this.#entry(id);
    assertArgument(changedCopy.readers === 0, `'${id}' is being copied from ${tier}`, { id, tier });
    const others = this.#tiers.filter(({ index }) => copyAt(entry, index) !== changedCopy);
    for (const { name, index } of others) assertIdle(id, name, copyAt(entry, index));
    for (const other of others) {
      const stale = copyAt(entry, other.index);
      if (stale.state === 'resident') other.dismiss(id, stale, entry.sizeBytes, 'explicit');
    }
  }

  /**
   * Names copies to drop so that `sizeBytes` fit into a tier, in the policy's order. Changes
   * nothing here; a policy with a moving hand may advance it.
   * @param mayEvict Narrows the choice further. Default: every unpinned copy.
   * @returns No victims where there is room; `undefined` where dropping all of them is not enough.
   */
  planRoom(
    tier: Tier,
    sizeBytes: number,
    mayEvict: (id: Id) => boolean = () => true,
  ): readonly Victim<Id>[] | undefined {
    checkInteger('sizeBytes', sizeBytes);
    const state = this.#tier(tier);
    const victims = new Map<Id, Victim<Id>>();
    let room = state.freeBytes;
    if (sizeBytes - room > state.unpinnedBytes) return undefined;
    const allowed = (id: Id): boolean => {
      const copy = this.#entries.get(id)?.copies[state.index];
      const free = copy?.state === 'resident' && holders(copy) === 0;
      return free && !victims.has(id) && mayEvict(id);
    };
    while (room < sizeBytes) {
      const id = state.policy.chooseVictim(allowed);
      if (id === undefined) return undefined;
      assertInvariant(allowed(id), `the policy of ${tier} chose '${id}', which may not go`);
      const entry = this.#entry(id);
      const isLastCopy = !entry.recreatable && residentCopies(entry) === 1;
      victims.set(id, { id, sizeBytes: entry.sizeBytes, isLastCopy });
      room += entry.sizeBytes;
    }
    return [...victims.values()];
  }

  /**
   * Verifies every invariant; linear.
   * @throws VramError `invariant` naming the first that fails.
   */
  check(): void {
    const readers = new Map<Copy, number>();
    for (const { id, from, to } of this.#moves) {
      const [source, target] = [from, to].map((name) => this.#copy(id, name));
      const way = this.#tier(from).index > this.#tier(to).index ? 'loading' : 'storing';
      assertInvariant(source?.state === 'resident', `a move of '${id}' reads what is not there`);
      assertInvariant(target?.state === way, `'${id}' is not ${way} in ${to}`);
      readers.set(source, (readers.get(source) ?? 0) + 1);
    }
    const moving = [...this.#moves].map(({ id, to }) => JSON.stringify([id, to]));
    assertInvariant(new Set(moving).size === moving.length, 'two moves to one place');
    for (const [id, entry] of this.#entries) {
      assertInvariant(residentCopies(entry) > 0, `'${id}' has no resident copy`);
      for (const copy of entry.copies) {
        assertInvariant(copy.readers === (readers.get(copy) ?? 0), `readers of '${id}'`);
      }
    }
    for (const tier of this.#tiers) {
      const copies = [...this.#entries.values()].map(
        (entry) => [copyAt(entry, tier.index), entry.sizeBytes] as const,
      );
      tier.check(copies);
    }
  }

  #tier(name: Tier): TierLedger<Id, Tier> {
    const tier = this.#tiers.find((candidate) => candidate.name === name);
    return tier ?? fail('invalid-argument', `unknown tier '${name}'`, { tier: name });
  }

  #entry(id: Id): Entry {
    return this.#entries.get(id) ?? fail('invalid-argument', `'${id}' is unknown`, { id });
  }

  #copy(id: Id, tier: Tier): Copy {
    return copyAt(this.#entry(id), this.#tier(tier).index);
  }

  #resident(id: Id, tier: Tier): Copy {
    const copy = this.#copy(id, tier);
    const { state } = copy;
    assertArgument(state === 'resident', `'${id}' is ${state} in ${tier}`, { id, tier, state });
    return copy;
  }
}

function copyAt(entry: Entry, tierIndex: number): Copy {
  return entry.copies[tierIndex] ?? fail('invariant', `no tier ${tierIndex}`);
}

/** Checks that nobody reads, writes or keeps a copy. @throws VramError `invalid-argument`. */
function assertIdle(id: ResidentId, tier: string, copy: Copy): void {
  const moving = copy.state === 'loading' || copy.state === 'storing';
  assertArgument(!moving && holders(copy) === 0, `'${id}' is pinned or moving in ${tier}`, {
    id,
    tier,
  });
}

function residentCopies(entry: Entry): number {
  return entry.copies.reduce((count, { state }) => count + (state === 'resident' ? 1 : 0), 0);
}

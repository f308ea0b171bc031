/**
 * From ids to slots: small integers that index the typed arrays of a replacement policy.
 *
 * Any id goes through a map. Ids that are small integers already, such as blocks and experts, are
 * their own slots, which costs an array read instead of a hash.
 *
 * A cache can make the index itself, hand it to its policy and keep its values in an array by slot:
 * then a read costs one look-up. The map remembers the last answer, since the question of a policy
 * follows that of its cache.
 *
 * Slots below {@link FIRST_SLOT} belong to the lists; 0 stands for none.
 */
import { checkInteger, fail } from '@vramkit/core';

/** The lowest slot of an id: those below are heads of lists. */
export const FIRST_SLOT = 8;

/** Which id is in which slot; belongs to one policy. Every call is O(1). */
export interface SlotIndex<Id> {
  /** The slot of an id, or 0. A policy may keep the slot of an id that left its cache. */
  find(id: Id): number;
  /**
   * Takes a slot for an id.
   * @throws VramError `invalid-argument` where the id has one or cannot have one.
   */
  add(id: Id): number;
  /** The id of a taken slot. */
  idOf(slot: number): Id;
  /** Gives a taken slot back. */
  drop(slot: number): void;
}

/** Stands in a slot without an id; undefined may itself be one. */
const FREE = Symbol('free');

class MapIndex<Id> implements SlotIndex<Id> {
  readonly #slots = new Map<Id, number>();
  readonly #ids: (Id | typeof FREE)[] = Array.from({ length: FIRST_SLOT }, () => FREE);
  /** Free slots form a stack: each holds the one below it, the lowest holds 0. */
  #below = new Uint32Array(64);
  #free = 0;
  #count = 0;
  #lastId: Id | undefined;
  /** The slot of the last id; -1 where there is no last id. */
  #lastSlot = -1;

  find(id: Id): number {
    if (this.#lastSlot !== -1 && id === this.#lastId) return this.#lastSlot;
    const slot = this.#slots.get(id);
    this.#lastId = id;
    this.#lastSlot = slot === undefined ? 0 : slot;
    return this.#lastSlot;
  }

  add(id: Id): number {
    const free = this.#free;
    const slot = free === 0 ? this.#ids.length : free;
    this.#slots.set(id, slot);
    // A set that added nothing has overwritten a slot: cheaper to find out than to ask before.
    if (this.#slots.size === this.#count) {
      this.#slots.set(
        id,
        this.#ids.findIndex((each) => each === id || Object.is(each, id)),
      );
      fail('invalid-argument', `'${String(id)}' has a slot already`, { id: String(id) });
    }
    this.#count += 1;
    if (free !== 0) this.#free = this.#below[free] ?? 0;
    this.#ids[slot] = id;
    this.#lastId = id;
    this.#lastSlot = slot;
    return slot;
  }

  idOf(slot: number): Id {
    // A taken slot holds an id.
    const id = this.#ids[slot] as Id;
    this.#lastId = id;
    this.#lastSlot = slot;
    return id;
  }

  drop(slot: number): void {
    // As in idOf.
    this.#slots.delete(this.#ids[slot] as Id);
    this.#count -= 1;
    this.#ids[slot] = FREE;
    if (slot >= this.#below.length) {
      const grown = new Uint32Array(2 * slot);
      grown.set(this.#below);
      this.#below = grown;
    }
    this.#below[slot] = this.#free;
    this.#free = slot;
    this.#lastSlot = -1;
  }
}

class DenseIndex implements SlotIndex<number> {
  readonly #taken: Uint8Array;

  constructor(idCount: number) {
    this.#taken = new Uint8Array(checkInteger('idCount', idCount, 1));
  }

  find(id: number): number {
    return this.#taken[id] === 1 ? id + FIRST_SLOT : 0;
  }

  add(id: number): number {
    if (this.#taken[id] !== 0) {
      const idCount = this.#taken.length;
      fail('invalid-argument', `${id} has a slot already, or is no integer in [0, ${idCount})`, {
        id: String(id),
        idCount,
      });
    }
    this.#taken[id] = 1;
    return id + FIRST_SLOT;
  }

  idOf(slot: number): number {
    return slot - FIRST_SLOT;
  }

  drop(slot: number): void {
    this.#taken[slot - FIRST_SLOT] = 0;
  }
}

/** Any ids that a `Map` can hold. */
export function anyIds<Id>(): SlotIndex<Id> {
  return new MapIndex<Id>();
}

/**
 * Ids that are integers in `[0, idCount)`: one byte each, taken at once.
 * @throws VramError `invalid-argument` where `idCount` is no count of at least 1.
 */
export function denseIds(idCount: number): SlotIndex<number> {
  return new DenseIndex(idCount);
}

/**
 * From ids to slots: small integers that index the typed arrays of a replacement policy.
 *
 * Any id goes through a map. Ids that are small integers already, such as blocks and experts, are
 * their own slots, which costs two array reads instead of a hash.
 *
 * Slots below {@link FIRST_SLOT} belong to the lists; 0 stands for none.
 */
import { checkInteger, fail } from '@vramkit/core';

/** The lowest slot of an id: those below are heads of lists. */
export const FIRST_SLOT = 8;

/** Which id is in which slot; belongs to one policy. Every call is O(1). */
export interface SlotIndex<Id> {
  /** The slot of an id, or 0. */
  find(id: Id): number;
  /** Takes a slot for an id that has none. @throws VramError `invalid-argument` out of range. */
  add(id: Id): number;
  /** The id of a taken slot. */
  idOf(slot: number): Id;
  /** Gives a slot back. */
  drop(id: Id, slot: number): void;
}

/** Any ids that a `Map` can hold. */
export function anyIds<Id>(): SlotIndex<Id> {
  const slots = new Map<Id, number>();
  const ids: (Id | undefined)[] = [];
  const free: number[] = [];
  return {
    find: (id) => slots.get(id) ?? 0,
    add(id) {
      const slot = free.pop() ?? ids.length + FIRST_SLOT;
      slots.set(id, slot);
      ids[slot - FIRST_SLOT] = id;
      return slot;
    },
    // A taken slot holds an id; undefined may itself be one.
    idOf: (slot) => ids[slot - FIRST_SLOT] as Id,
    drop(id, slot) {
      slots.delete(id);
      ids[slot - FIRST_SLOT] = undefined;
      free.push(slot);
    },
  };
}

/**
 * Ids that are integers in `[0, idCount)`: one byte each, taken at once.
 * @throws VramError `invalid-argument` where `idCount` is no count of at least 1.
 */
export function denseIds(idCount: number): SlotIndex<number> {
  const taken = new Uint8Array(checkInteger('idCount', idCount, 1));
  return {
    find: (id) => (taken[id] === 1 ? id + FIRST_SLOT : 0),
    add(id) {
      if (taken[id] === undefined) {
        fail('invalid-argument', `id ${id} is no integer in [0, ${idCount})`, { id, idCount });
      }
      taken[id] = 1;
      return id + FIRST_SLOT;
    },
    idOf: (slot) => slot - FIRST_SLOT,
    drop(id) {
      taken[id] = 0;
    },
  };
}

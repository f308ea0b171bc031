/** Ids and lists together, as every replacement policy needs them, with typed errors. */
import { assertInvariant, fail } from '@vramkit/core';
import type { ReplacementPolicy } from '@vramkit/core';
import { anyIds, type SlotIndex } from './slot-index.js';
import { SlotLists } from './slot-lists.js';

/** Options that every replacement policy takes. */
export interface ReplacementOptions<Id> {
  /** How ids become slots; belongs to this policy. Default: {@link anyIds}. */
  readonly ids?: SlotIndex<Id>;
}

/** A replacement policy that can be inspected. */
export interface Replacement<Id> extends ReplacementPolicy<Id> {
  /** Copies held. */
  readonly size: number;
  /** Verifies every invariant; linear. @throws VramError `invariant`. */
  check(): void;
}

/**
 * Slots of the ids that a policy knows, in lists: lists 1 to `residentLists` hold resident copies,
 * those above hold ids that are gone and remembered.
 */
export class HeldSlots<Id> {
  readonly index: SlotIndex<Id>;
  readonly lists = new SlotLists();
  readonly #residentLists: number;

  constructor({ ids }: ReplacementOptions<Id>, residentLists: number) {
    this.index = ids ?? anyIds();
    this.#residentLists = residentLists;
  }

  /** Resident copies. */
  get size(): number {
    let size = 0;
    for (let list = 1; list <= this.#residentLists; list++) size += this.lists.count(list);
    return size;
  }

  /** The slot of a resident id. @throws VramError `invalid-argument` where it is none. */
  resident(id: Id): number {
    const slot = this.index.find(id);
    const list = this.lists.listOf(slot);
    if (list === 0 || list > this.#residentLists) refuse(id, 'not held');
    return slot;
  }

  /**
   * The slot of an id that is not resident: in no list where it is new, in its list where it is
   * remembered.
   * @throws VramError `invalid-argument` where it is resident.
   */
  arriving(id: Id): number {
    const slot = this.index.find(id);
    if (slot === 0) return this.index.add(id);
    if (this.lists.listOf(slot) <= this.#residentLists) refuse(id, 'held already');
    return slot;
  }

  /** The oldest id of a list that may go; changes nothing. Linear. */
  search(list: number, mayEvict: (id: Id) => boolean): Id | undefined {
    for (let slot = this.lists.oldest(list); slot !== 0; slot = this.lists.newer(slot)) {
      const id = this.index.idOf(slot);
      if (mayEvict(id)) return id;
    }
    return undefined;
  }

  /** Takes a slot out of its list and gives it back. */
  forget(slot: number): void {
    this.lists.unlink(slot);
    this.index.drop(slot);
  }

  /** Verifies a list. @throws VramError `invariant`. */
  check(list: number): number[] {
    const slots = this.lists.check(list);
    for (const slot of slots) {
      assertInvariant(this.index.find(this.index.idOf(slot)) === slot, `the id of slot ${slot}`);
    }
    return slots;
  }
}

function refuse(id: unknown, what: string): never {
  fail('invalid-argument', `'${String(id)}' is ${what}`, { id: String(id) });
}

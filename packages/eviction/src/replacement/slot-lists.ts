/**
 * Doubly linked lists of slots, intrusive: one pair of links per slot, in typed arrays.
 *
 * ```
 *   list 1:  head 1 <-> slot 12 <-> slot 8 <-> slot 31 <-> head 1
 *                       oldest                 newest
 * ```
 *
 * Lists are circular and their heads are slots too, so linking never branches. A slot is in one
 * list at most; list 0 stands for none. Every call is O(1), growth amortised.
 */
import { assertInvariant } from '@vramkit/core';
import { FIRST_SLOT } from './slot-index.js';

/** Lists 1 to 7 of slots. */
export class SlotLists {
  #newer = new Uint32Array(64);
  #older = new Uint32Array(64);
  #listOf = new Uint8Array(64);
  readonly #counts = new Uint32Array(FIRST_SLOT);

  constructor() {
    for (let head = 0; head < FIRST_SLOT; head++) this.#newer[head] = this.#older[head] = head;
  }

  /** Slots in a list. */
  count(list: number): number {
    return this.#counts[list] ?? 0;
  }

  /** The list that a slot is in, or 0. */
  listOf(slot: number): number {
    return this.#listOf[slot] ?? 0;
  }

  /** The slot that has been longest in a list, or 0. */
  oldest(list: number): number {
    return this.newer(list);
  }

  /** The neighbour towards the newest, or 0 behind it. */
  newer(slot: number): number {
    const newer = this.#newer[slot] ?? 0;
    return newer < FIRST_SLOT ? 0 : newer;
  }

  /** Puts a slot that is in no list at the newest end of one. */
  push(list: number, slot: number): void {
    this.insertBehind(list, this.#older[list] ?? list, slot);
  }

  /** Puts a slot of no list on the newer side of `older`: a slot of the list, or its head. */
  insertBehind(list: number, older: number, slot: number): void {
    if (slot >= this.#listOf.length) this.#grow(slot);
    const newer = this.#newer[older] ?? 0;
    this.#newer[older] = slot;
    this.#older[slot] = older;
    this.#newer[slot] = newer;
    this.#older[newer] = slot;
    this.#listOf[slot] = list;
    this.#counts[list] = (this.#counts[list] ?? 0) + 1;
  }

  /** The neighbour towards the oldest; the head of the list beside it. */
  older(slot: number): number {
    return this.#older[slot] ?? 0;
  }

  /** Takes a slot out of its list. */
  unlink(slot: number): void {
    const older = this.#older[slot] ?? 0;
    const newer = this.#newer[slot] ?? 0;
    const list = this.#listOf[slot] ?? 0;
    this.#newer[older] = newer;
    this.#older[newer] = older;
    this.#listOf[slot] = 0;
    this.#counts[list] = (this.#counts[list] ?? 0) - 1;
  }

  /** Moves a slot to the newest end of a list, its own or another. */
  move(list: number, slot: number): void {
    const newers = this.#newer;
    const olders = this.#older;
    if (this.#listOf[slot] !== list) {
      this.unlink(slot);
      this.push(list, slot);
      return;
    }
    const newer = newers[slot] ?? 0;
    if (newer === list) return;
    const older = olders[slot] ?? 0;
    newers[older] = newer;
    olders[newer] = older;
    const newest = olders[list] ?? 0;
    newers[newest] = slot;
    olders[slot] = newest;
    newers[slot] = list;
    olders[list] = slot;
  }

  /** Slots of a list, the oldest first. @throws VramError `invariant` where a link is broken. */
  check(list: number): number[] {
    const slots: number[] = [];
    for (let slot = this.oldest(list); slot !== 0; slot = this.newer(slot)) {
      slots.push(slot);
      assertInvariant(
        this.#listOf[slot] === list && slots.length <= this.count(list),
        `slot ${slot} of list ${list} is in list ${this.#listOf[slot]}`,
      );
      assertInvariant(this.#newer[this.older(slot)] === slot, `links around slot ${slot}`);
    }
    assertInvariant(slots.length === this.count(list), `count of list ${list}`);
    return slots;
  }

  #grow(slot: number): void {
    const length = Math.max(slot + 1, 2 * this.#listOf.length);
    const grown = <Links extends Uint32Array | Uint8Array>(to: Links, from: Links): Links => {
      to.set(from);
      return to;
    };
    this.#newer = grown(new Uint32Array(length), this.#newer);
    this.#older = grown(new Uint32Array(length), this.#older);
    this.#listOf = grown(new Uint8Array(length), this.#listOf);
  }
}

/**
 * LFU: the copy that was used least often goes first, of equals the one used longest ago.
 *
 * One list, ordered by count of uses, then by age. A use moves a copy behind the last one of the
 * next count, so no search is needed:
 *
 * ```
 *   count   1 1 1 | 2 2 | 5
 *   last        ^     ^   ^      a use of a 1 puts it behind the last 2
 * ```
 *
 * A copy that may not go is in use, so it counts as used: one that stays in use climbs to the count
 * of its neighbours.
 *
 * What it gets wrong: the past never fades. What was popular yesterday stays, and what arrives
 * today is the first to go.
 *
 * Cost: O(1); the search is O(1) amortised where the copies in use are no more than a constant
 * share. Source: Shah, Mitra, Matani, "An O(1) algorithm for implementing the LFU cache eviction
 * scheme" (2010), with one list instead of a list of lists.
 */
import { assertInvariant } from '@vramkit/core';
import { HeldSlots, type Replacement, type ReplacementOptions } from './held-slots.js';
import { SlotNumbers } from './slot-numbers.js';

const HELD = 1;

class Lfu<Id> implements Replacement<Id> {
  readonly #slots: HeldSlots<Id>;
  readonly #uses = new SlotNumbers();
  /** The last slot of each count. */
  readonly #lastOf = new Map<number, number>();

  constructor(options: ReplacementOptions<Id>) {
    this.#slots = new HeldSlots(options, HELD);
  }

  get size(): number {
    return this.#slots.size;
  }

  inserted(id: Id): void {
    const slot = this.#slots.index.add(id);
    this.#slots.lists.insertBehind(HELD, this.#lastOf.get(1) ?? HELD, slot);
    this.#uses.set(slot, 1);
    this.#lastOf.set(1, slot);
  }

  touched(id: Id): void {
    this.#use(this.#slots.resident(id));
  }

  removed(id: Id): void {
    const slot = this.#slots.resident(id);
    this.#leaveGroup(slot);
    this.#slots.forget(slot);
  }

  chooseVictim(mayEvict: (id: Id) => boolean): Id | undefined {
    const { index, lists } = this.#slots;
    const inUse: number[] = [];
    let slot = lists.oldest(HELD);
    while (slot !== 0 && !mayEvict(index.idOf(slot))) {
      inUse.push(slot);
      slot = lists.newer(slot);
    }
    // Only now: a copy that moves ahead of the search would be met again.
    for (const each of inUse) this.#use(each);
    return slot === 0 ? undefined : index.idOf(slot);
  }

  check(): void {
    let previous = 0;
    for (const slot of this.#slots.check(HELD)) {
      const count = this.#uses.get(slot);
      assertInvariant(count >= Math.max(1, previous), `count ${count} behind ${previous}`);
      const newer = this.#slots.lists.newer(slot);
      const isLast = newer === 0 || this.#uses.get(newer) !== count;
      assertInvariant((this.#lastOf.get(count) === slot) === isLast, `the last of ${count}`);
      previous = count;
    }
  }

  #use(slot: number): void {
    const { lists } = this.#slots;
    const count = this.#uses.get(slot);
    const target = this.#lastOf.get(count + 1) ?? this.#lastOf.get(count) ?? slot;
    this.#leaveGroup(slot);
    this.#uses.set(slot, count + 1);
    this.#lastOf.set(count + 1, slot);
    if (target === slot) return;
    lists.unlink(slot);
    lists.insertBehind(HELD, target, slot);
  }

  #leaveGroup(slot: number): void {
    const count = this.#uses.get(slot);
    if (this.#lastOf.get(count) !== slot) return;
    const older = this.#slots.lists.older(slot);
    // The head of the list has no uses, so it is in no group.
    if (this.#uses.get(older) === count) this.#lastOf.set(count, older);
    else this.#lastOf.delete(count);
  }
}

/** Least frequently used first. */
export function lfu<Id>(options: ReplacementOptions<Id> = {}): Replacement<Id> {
  return new Lfu(options);
}

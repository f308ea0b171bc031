/**
 * SIEVE: a queue with a hand that sifts the copies used since it last came by from those not used.
 *
 * ```
 *   oldest  A  B* C  D* E  newest        * used since the hand passed
 *              ^ hand: passes B, clears its mark, and names C
 * ```
 *
 * A use only sets a mark, so a hit moves nothing. The hand goes from old to new, clears marks, and
 * stops at the first copy without one; survivors stay where they are, so new copies that are not
 * used go quickly. A copy that may not go is passed.
 *
 * What it gets wrong: it is not for block storage with loops just above the size of the cache,
 * where it is as good as FIFO.
 *
 * Cost: O(1), the search amortised. Source: Zhang, Yang, Yue, Vigfusson, Rashmi, "SIEVE is Simpler
 * than LRU: an Efficient Turn-Key Eviction Algorithm for Web Caches" (NSDI 2024).
 */
import { assertInvariant } from '@vramkit/core';
import { HeldSlots, type Replacement, type ReplacementOptions } from './held-slots.js';
import { SlotNumbers } from './slot-numbers.js';

const HELD = 1;

class Sieve<Id> implements Replacement<Id> {
  readonly #slots: HeldSlots<Id>;
  /** 1 for each slot that was used since the hand passed. */
  readonly #marks = new SlotNumbers();
  /** Where the search goes on; 0 for the oldest. */
  #hand = 0;

  constructor(options: ReplacementOptions<Id>) {
    this.#slots = new HeldSlots(options, HELD);
  }

  get size(): number {
    return this.#slots.size;
  }

  inserted(id: Id): void {
    const slot = this.#slots.index.add(id);
    this.#marks.set(slot, 0);
    this.#slots.lists.push(HELD, slot);
  }

  touched(id: Id): void {
    this.#marks.set(this.#slots.resident(id), 1);
  }

  removed(id: Id): void {
    const slot = this.#slots.resident(id);
    if (this.#hand === slot) this.#hand = this.#slots.lists.newer(slot);
    this.#slots.forget(slot);
  }

  chooseVictim(mayEvict: (id: Id) => boolean): Id | undefined {
    const { index, lists } = this.#slots;
    // One turn clears every mark; a second one meets every copy that may go.
    for (let left = 2 * lists.count(HELD); left > 0; left--) {
      const slot = this.#hand === 0 ? lists.oldest(HELD) : this.#hand;
      this.#hand = slot;
      if (this.#marks.get(slot) === 0) {
        const id = index.idOf(slot);
        if (mayEvict(id)) return id;
      }
      this.#marks.set(slot, 0);
      this.#hand = lists.newer(slot);
    }
    return undefined;
  }

  check(): void {
    this.#slots.check(HELD);
    const isAtCopy = this.#hand === 0 || this.#slots.lists.listOf(this.#hand) === HELD;
    assertInvariant(isAtCopy, 'the hand is at no copy');
  }
}

/** Not used since the hand last passed first. */
export function sieve<Id>(options: ReplacementOptions<Id> = {}): Replacement<Id> {
  return new Sieve(options);
}

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

const HELD = 1;

/** Not used since the hand last passed first. */
export function sieve<Id>(options: ReplacementOptions<Id> = {}): Replacement<Id> {
  const slots = new HeldSlots<Id>(options, HELD);
  const { index, lists } = slots;
  /** 1 for each slot that was used since the hand passed. */
  const marks: number[] = [];
  /** Where the search goes on; 0 for the oldest. */
  let hand = 0;

  return {
    get size() {
      return slots.size;
    },
    inserted(id) {
      const slot = slots.arriving(id);
      marks[slot] = 0;
      lists.push(HELD, slot);
    },
    touched(id) {
      marks[slots.resident(id)] = 1;
    },
    removed(id) {
      const slot = slots.resident(id);
      if (hand === slot) hand = lists.newer(slot);
      slots.forget(slot);
    },
    chooseVictim(mayEvict) {
      // One turn clears every mark; a second one meets every copy that may go.
      for (let left = 2 * lists.count(HELD); left > 0; left--) {
        if (hand === 0) hand = lists.oldest(HELD);
        const id = index.idOf(hand);
        if (marks[hand] === 0 && mayEvict(id)) return id;
        marks[hand] = 0;
        hand = lists.newer(hand);
      }
      return undefined;
    },
    check() {
      slots.check(HELD);
      assertInvariant(hand === 0 || lists.listOf(hand) === HELD, 'the hand is at no copy');
    },
  };
}

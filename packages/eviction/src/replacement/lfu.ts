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

const HELD = 1;

/** Least frequently used first. */
export function lfu<Id>(options: ReplacementOptions<Id> = {}): Replacement<Id> {
  const slots = new HeldSlots<Id>(options, HELD);
  const { index, lists } = slots;
  /** Uses of each slot. */
  const uses: number[] = [];
  /** The last slot of each count. */
  const lastOf = new Map<number, number>();

  const leaveGroup = (slot: number): void => {
    const count = uses[slot] ?? 0;
    if (lastOf.get(count) !== slot) return;
    const older = lists.older(slot);
    if (uses[older] === count) lastOf.set(count, older);
    else lastOf.delete(count);
  };

  const use = (slot: number): void => {
    const count = uses[slot] ?? 0;
    const target = lastOf.get(count + 1) ?? lastOf.get(count);
    leaveGroup(slot);
    uses[slot] = count + 1;
    lastOf.set(count + 1, slot);
    if (target === undefined || target === slot) return;
    lists.unlink(slot);
    lists.insertBehind(HELD, target, slot);
  };

  return {
    get size() {
      return slots.size;
    },
    inserted(id) {
      const slot = slots.arriving(id);
      lists.insertBehind(HELD, lastOf.get(1) ?? HELD, slot);
      uses[slot] = 1;
      lastOf.set(1, slot);
    },
    touched(id) {
      use(slots.resident(id));
    },
    removed(id) {
      const slot = slots.resident(id);
      leaveGroup(slot);
      uses[slot] = 0;
      slots.forget(slot);
    },
    chooseVictim(mayEvict) {
      const inUse: number[] = [];
      let slot = lists.oldest(HELD);
      while (slot !== 0 && !mayEvict(index.idOf(slot))) {
        inUse.push(slot);
        slot = lists.newer(slot);
      }
      // Only now: a copy that moves ahead of the search would be met again.
      inUse.forEach(use);
      return slot === 0 ? undefined : index.idOf(slot);
    },
    check() {
      let previous = 0;
      for (const slot of slots.check(HELD)) {
        const count = uses[slot] ?? 0;
        assertInvariant(count >= Math.max(1, previous), `count ${count} behind ${previous}`);
        const newer = lists.newer(slot);
        const isLast = newer === 0 || uses[newer] !== count;
        assertInvariant((lastOf.get(count) === slot) === isLast, `the last of count ${count}`);
        previous = count;
      }
    },
  };
}

/**
 * LRU: the copy that was used longest ago goes first.
 *
 * One list, the least recently used first. A copy that may not go is in use, so it counts as used:
 * it moves to the newest end, and the search passes it once per turn of the list.
 *
 * What it gets wrong: a scan. One pass over more copies than fit throws out everything that was
 * worth keeping.
 *
 * Cost: O(1); the search is O(1) amortised over the uses that it counts.
 */
import { HeldSlots, type Replacement, type ReplacementOptions } from './held-slots.js';

const HELD = 1;

/** Least recently used first. */
export function lru<Id>(options: ReplacementOptions<Id> = {}): Replacement<Id> {
  const slots = new HeldSlots<Id>(options, HELD);
  const { index, lists } = slots;
  return {
    get size() {
      return slots.size;
    },
    inserted(id) {
      lists.push(HELD, slots.arriving(id));
    },
    touched(id) {
      lists.move(HELD, slots.resident(id));
    },
    removed(id) {
      slots.forget(slots.resident(id));
    },
    chooseVictim(mayEvict) {
      for (let left = lists.count(HELD); left > 0; left--) {
        const slot = lists.oldest(HELD);
        const id = index.idOf(slot);
        if (mayEvict(id)) return id;
        lists.move(HELD, slot);
      }
      return undefined;
    },
    check() {
      slots.check(HELD);
    },
  };
}

/**
 * ARC, adaptive replacement cache: balances what was used once against what was used more often, by
 * what it regrets having dropped.
 *
 * ```
 *   B1 <- [ T1 once, least recent first ]      target: how many copies T1 should hold
 *   B2 <- [ T2 more, least recent first ]      B1, B2: ids that left T1 and T2
 * ```
 *
 * An id that returns while B1 remembers it says that T1 was too short: the target rises. One that
 * B2 remembers lowers it. Where T1 is longer than the target, its oldest goes, otherwise that of
 * T2. A copy that may not go is in use, so it counts as used and moves to T2; where all of T2 is in
 * use, the target gives way.
 *
 * What it gets wrong: it remembers as many ids as it holds copies, and a hit moves a copy under
 * whatever lock guards it.
 *
 * Cost: O(1), the search amortised. Source: Megiddo, Modha, "ARC: A Self-Tuning, Low Overhead
 * Replacement Cache" (FAST 2003). Differences: a victim is chosen before it is known who comes, so
 * the target adapts one miss later, and T1 keeps the copy where it is just at the target; the
 * capacity in copies is how many were held at the last choice.
 */
import { assertInvariant } from '@vramkit/core';
import { HeldSlots, type Replacement, type ReplacementOptions } from './held-slots.js';

const ONCE = 1;
const OFTEN = 2;
const ONCE_GHOST = 3;
const OFTEN_GHOST = 4;

/** Adaptive between recency and frequency. */
export function arc<Id>(options: ReplacementOptions<Id> = {}): Replacement<Id> {
  const slots = new HeldSlots<Id>(options, OFTEN);
  const { index, lists } = slots;
  /** Copies that T1 should hold. */
  let target = 0;
  /** Copies held when a victim was last chosen. */
  let capacity = 0;

  const adapt = (ghost: number): void => {
    const [once, often] = [lists.count(ONCE_GHOST), lists.count(OFTEN_GHOST)];
    if (ghost === ONCE_GHOST) target = Math.min(capacity, target + Math.max(1, often / once));
    else target = Math.max(0, target - Math.max(1, once / often));
  };

  const trim = (): void => {
    while (lists.count(ONCE) + lists.count(ONCE_GHOST) > capacity && lists.count(ONCE_GHOST) > 0) {
      slots.forget(lists.oldest(ONCE_GHOST));
    }
    const ghosts = (): number => lists.count(ONCE_GHOST) + lists.count(OFTEN_GHOST);
    while (slots.size + ghosts() > 2 * capacity && ghosts() > 0) {
      slots.forget(lists.oldest(OFTEN_GHOST) || lists.oldest(ONCE_GHOST));
    }
  };

  /** The oldest of a list that may go, among its first `count`; the others move to T2. */
  const take = (list: number, count: number, mayEvict: (id: Id) => boolean): Id | undefined => {
    for (let left = count; left > 0; left--) {
      const slot = lists.oldest(list);
      const id = index.idOf(slot);
      if (mayEvict(id)) return id;
      lists.move(OFTEN, slot);
    }
    return undefined;
  };

  return {
    get size() {
      return slots.size;
    },
    inserted(id) {
      const slot = slots.arriving(id);
      const ghost = lists.listOf(slot);
      if (ghost === 0) {
        lists.push(ONCE, slot);
      } else {
        adapt(ghost);
        lists.move(OFTEN, slot);
      }
      trim();
    },
    touched(id) {
      lists.move(OFTEN, slots.resident(id));
    },
    removed(id, reason) {
      const slot = slots.resident(id);
      const isOnce = lists.listOf(slot) === ONCE;
      if (reason === 'explicit') slots.forget(slot);
      else lists.move(isOnce ? ONCE_GHOST : OFTEN_GHOST, slot);
      trim();
    },
    chooseVictim(mayEvict) {
      capacity = slots.size;
      target = Math.min(target, capacity);
      trim();
      const [once, often] = [lists.count(ONCE), lists.count(OFTEN)];
      if (once > target) return take(ONCE, once, mayEvict) ?? take(OFTEN, often, mayEvict);
      const victim = take(OFTEN, often, mayEvict);
      if (victim !== undefined) return victim;
      target = Math.max(0, once - 1);
      return take(ONCE, once, mayEvict);
    },
    check() {
      for (const list of [ONCE, OFTEN, ONCE_GHOST, OFTEN_GHOST]) slots.check(list);
      const ghosts = lists.count(ONCE_GHOST) + lists.count(OFTEN_GHOST);
      assertInvariant(
        ghosts === 0 || slots.size + ghosts <= 2 * capacity,
        'too many ids remembered',
      );
      assertInvariant(target >= 0 && target <= capacity, `target ${target}`);
    },
  };
}

/**
 * SLRU, segmented LRU: copies prove themselves before they are protected.
 *
 * ```
 *   inserted -> [ probation ] --used--> [ protected ]       victims leave from probation first
 *                     ^------- overflow -----'
 * ```
 *
 * A copy starts on probation; a use moves it to the protected segment, whose oldest falls back to
 * probation where the segment exceeds its share of all copies. A copy that may not go is in use, so
 * it counts as used.
 *
 * What it gets wrong: the share is fixed, and one use is enough, so a scan that touches everything
 * twice is not resisted.
 *
 * Cost: O(1); the search is O(1) amortised over the uses that it counts. Source: Karedla, Love,
 * Wherry, "Caching Strategies to Improve Disk System Performance" (1994). The share is of the
 * copies held, as no capacity in copies is known.
 */
import { assertArgument, assertInvariant } from '@vramkit/core';
import { HeldSlots, type Replacement, type ReplacementOptions } from './held-slots.js';

/** Options of {@link slru}. */
export interface SlruOptions<Id> extends ReplacementOptions<Id> {
  /** Most of the copies that may be protected, in [0, 1]. Default: 0.8. */
  readonly protectedShare?: number;
}

const PROBATION = 1;
const PROTECTED = 2;

/**
 * Copies on probation first.
 * @throws VramError `invalid-argument` where the share is not in [0, 1].
 */
export function slru<Id>(options: SlruOptions<Id> = {}): Replacement<Id> {
  const { protectedShare = 0.8 } = options;
  assertArgument(
    protectedShare >= 0 && protectedShare <= 1,
    `protectedShare must be in [0, 1], got ${protectedShare}`,
  );
  const slots = new HeldSlots<Id>(options, PROTECTED);
  const { index, lists } = slots;

  const limit = (): number => Math.floor(protectedShare * slots.size);
  const demote = (): void => {
    while (lists.count(PROTECTED) > limit()) lists.move(PROBATION, lists.oldest(PROTECTED));
  };
  const use = (slot: number): void => {
    lists.move(PROTECTED, slot);
    demote();
  };

  return {
    get size() {
      return slots.size;
    },
    inserted(id) {
      lists.push(PROBATION, slots.arriving(id));
    },
    touched(id) {
      use(slots.resident(id));
    },
    removed(id) {
      slots.forget(slots.resident(id));
      demote();
    },
    chooseVictim(mayEvict) {
      for (let left = slots.size; left > 0; left--) {
        const slot = lists.oldest(PROBATION) || lists.oldest(PROTECTED);
        const id = index.idOf(slot);
        if (mayEvict(id)) return id;
        use(slot);
      }
      return undefined;
    },
    check() {
      slots.check(PROBATION);
      slots.check(PROTECTED);
      assertInvariant(lists.count(PROTECTED) <= limit(), 'too many copies are protected');
    },
  };
}

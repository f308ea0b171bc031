/**
 * S3-FIFO: a small queue lets go at once of what is used only once.
 *
 * ```
 *   new ------> [ small, a tenth ] --used--> [ main ] --> victim, where not used since
 *                     |  not used                ^
 *                     v                          |
 *                  victim, remembered ----- comes back
 * ```
 *
 * New copies enter a small queue. From its end a copy that was used more than once moves to the
 * main queue; another is a victim, and its id is remembered for a while: where it returns, it enters
 * the main queue. In the main queue a used copy goes around again, at most three times per use
 * counted. A hit only counts, and moves nothing. A copy that may not go is in use: from the small
 * queue it moves to the main one, there it goes around.
 *
 * What it gets wrong: a copy whose second use comes just after it left the small queue is missed
 * once.
 *
 * Cost: O(1), the search amortised; ids remembered are at most as many as the share of the main
 * queue.
 * Source: Yang, Zhang, Qiu, Yue, Rashmi, "FIFO Queues are All You Need for Cache Eviction" (SOSP
 * 2023). Shares are of the copies held, as no capacity in copies is known.
 */
import { assertArgument, assertInvariant } from '@vramkit/core';
import { HeldSlots, type Replacement, type ReplacementOptions } from './held-slots.js';

/** Options of {@link s3Fifo}. */
export interface S3FifoOptions<Id> extends ReplacementOptions<Id> {
  /** Share of the copies that the small queue may hold, in (0, 1). Default: 0.1. */
  readonly smallShare?: number;
}

const SMALL = 1;
const MAIN = 2;
const GHOST = 3;
const MAX_USES = 3;

/**
 * Used once first.
 * @throws VramError `invalid-argument` where the share is not in (0, 1).
 */
export function s3Fifo<Id>(options: S3FifoOptions<Id> = {}): Replacement<Id> {
  const { smallShare = 0.1 } = options;
  assertArgument(
    smallShare > 0 && smallShare < 1,
    `smallShare must be in (0, 1), got ${smallShare}`,
  );
  const mainShare = 1 - smallShare;
  const slots = new HeldSlots<Id>(options, MAIN);
  const { index, lists } = slots;
  /** Uses of each resident slot, at most {@link MAX_USES}. */
  const uses: number[] = [];

  /** The next candidate, after moving on what was used. */
  const advance = (): number => {
    for (;;) {
      const small = lists.count(SMALL);
      const takesSmall = small > 0 && (small >= smallShare * slots.size || lists.count(MAIN) === 0);
      const slot = lists.oldest(takesSmall ? SMALL : MAIN);
      const count = uses[slot] ?? 0;
      if (takesSmall ? count <= 1 : count === 0) return slot;
      uses[slot] = takesSmall ? 0 : count - 1;
      lists.move(MAIN, slot);
    }
  };

  return {
    get size() {
      return slots.size;
    },
    inserted(id) {
      const slot = slots.arriving(id);
      uses[slot] = 0;
      if (lists.listOf(slot) === GHOST) lists.move(MAIN, slot);
      else lists.push(SMALL, slot);
    },
    touched(id) {
      const slot = slots.resident(id);
      uses[slot] = Math.min(MAX_USES, (uses[slot] ?? 0) + 1);
    },
    removed(id, reason) {
      const slot = slots.resident(id);
      if (reason === 'capacity' && lists.listOf(slot) === SMALL) lists.move(GHOST, slot);
      else slots.forget(slot);
      while (lists.count(GHOST) > mainShare * slots.size) slots.forget(lists.oldest(GHOST));
    },
    chooseVictim(mayEvict) {
      for (let left = slots.size; left > 0; left--) {
        const slot = advance();
        const id = index.idOf(slot);
        if (mayEvict(id)) return id;
        lists.move(MAIN, slot);
      }
      // Copies with uses left were passed over by counting, and small ones by their share.
      return slots.search(MAIN, mayEvict) ?? slots.search(SMALL, mayEvict);
    },
    check() {
      for (const list of [SMALL, MAIN]) {
        for (const slot of slots.check(list)) {
          const count = uses[slot] ?? -1;
          assertInvariant(count >= 0 && count <= MAX_USES, `uses of slot ${slot} are ${count}`);
        }
      }
      slots.check(GHOST);
    },
  };
}

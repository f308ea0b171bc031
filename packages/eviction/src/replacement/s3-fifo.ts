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
 * main queue; another is a victim, and its id is remembered for a while: where it returns, it
 * enters the main queue. In the main queue a used copy goes around once more for each use, of which
 * three count. A hit only counts, and moves nothing. A copy that may not go is in use: from the
 * small queue it moves to the main one, there it goes around.
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
import { SlotNumbers } from './slot-numbers.js';

/** Options of {@link s3Fifo}. */
export interface S3FifoOptions<Id> extends ReplacementOptions<Id> {
  /** Share of the copies that the small queue may hold, in (0, 1). Default: 0.1. */
  readonly smallShare?: number;
}

const SMALL = 1;
const MAIN = 2;
const GHOST = 3;
const MAX_USES = 3;

class S3Fifo<Id> implements Replacement<Id> {
  readonly #slots: HeldSlots<Id>;
  readonly #smallShare: number;
  /** Uses of each resident slot, at most {@link MAX_USES}. */
  readonly #uses = new SlotNumbers();

  constructor(options: S3FifoOptions<Id>) {
    const { smallShare = 0.1 } = options;
    assertArgument(
      smallShare > 0 && smallShare < 1,
      `smallShare must be in (0, 1), got ${smallShare}`,
    );
    this.#smallShare = smallShare;
    this.#slots = new HeldSlots(options, MAIN);
  }

  get size(): number {
    return this.#slots.size;
  }

  inserted(id: Id): void {
    const slot = this.#slots.arriving(id);
    const { lists } = this.#slots;
    this.#uses.set(slot, 0);
    if (lists.listOf(slot) === GHOST) lists.move(MAIN, slot);
    else lists.push(SMALL, slot);
  }

  touched(id: Id): void {
    const slot = this.#slots.resident(id);
    const uses = this.#uses.get(slot);
    if (uses < MAX_USES) this.#uses.set(slot, uses + 1);
  }

  removed(id: Id, reason: 'capacity' | 'explicit'): void {
    const slot = this.#slots.resident(id);
    const { lists } = this.#slots;
    if (reason === 'capacity' && lists.listOf(slot) === SMALL) lists.move(GHOST, slot);
    else this.#slots.forget(slot);
    const most = (1 - this.#smallShare) * this.#slots.size;
    while (lists.count(GHOST) > most) this.#slots.forget(lists.oldest(GHOST));
  }

  chooseVictim(mayEvict: (id: Id) => boolean): Id | undefined {
    const { index, lists } = this.#slots;
    for (let left = this.#slots.size; left > 0; left--) {
      const slot = this.#advance();
      const id = index.idOf(slot);
      if (mayEvict(id)) return id;
      lists.move(MAIN, slot);
    }
    // Copies with uses left were passed over by counting, and small ones by their share.
    return this.#slots.search(MAIN, mayEvict) ?? this.#slots.search(SMALL, mayEvict);
  }

  check(): void {
    for (const list of [SMALL, MAIN]) {
      for (const slot of this.#slots.check(list)) {
        const uses = this.#uses.get(slot);
        assertInvariant(uses >= 0 && uses <= MAX_USES, `uses of slot ${slot} are ${uses}`);
      }
    }
    this.#slots.check(GHOST);
  }

  /** The next candidate, after moving on what was used. */
  #advance(): number {
    const { lists } = this.#slots;
    const least = this.#smallShare * this.#slots.size;
    for (;;) {
      const small = lists.count(SMALL);
      const takesSmall = small > 0 && (small >= least || lists.count(MAIN) === 0);
      const slot = lists.oldest(takesSmall ? SMALL : MAIN);
      const uses = this.#uses.get(slot);
      if (takesSmall ? uses <= 1 : uses === 0) return slot;
      this.#uses.set(slot, takesSmall ? 0 : uses - 1);
      lists.move(MAIN, slot);
    }
  }
}

/**
 * Used once first.
 * @throws VramError `invalid-argument` where the share is not in (0, 1).
 */
export function s3Fifo<Id>(options: S3FifoOptions<Id> = {}): Replacement<Id> {
  return new S3Fifo(options);
}

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

class Slru<Id> implements Replacement<Id> {
  readonly #slots: HeldSlots<Id>;
  readonly #protectedShare: number;

  constructor(options: SlruOptions<Id>) {
    const { protectedShare = 0.8 } = options;
    assertArgument(
      protectedShare >= 0 && protectedShare <= 1,
      `protectedShare must be in [0, 1], got ${protectedShare}`,
    );
    this.#protectedShare = protectedShare;
    this.#slots = new HeldSlots(options, PROTECTED);
  }

  get size(): number {
    return this.#slots.size;
  }

  inserted(id: Id): void {
    this.#slots.lists.push(PROBATION, this.#slots.index.add(id));
  }

  touched(id: Id): void {
    this.#use(this.#slots.resident(id));
  }

  removed(id: Id): void {
    this.#slots.forget(this.#slots.resident(id));
    this.#demote();
  }

  chooseVictim(mayEvict: (id: Id) => boolean): Id | undefined {
    const { index, lists } = this.#slots;
    for (let left = this.#slots.size; left > 0; left--) {
      const slot = lists.oldest(PROBATION) || lists.oldest(PROTECTED);
      const id = index.idOf(slot);
      if (mayEvict(id)) return id;
      this.#use(slot);
    }
    return undefined;
  }

  check(): void {
    this.#slots.check(PROBATION);
    this.#slots.check(PROTECTED);
    const count = this.#slots.lists.count(PROTECTED);
    assertInvariant(count <= this.#limit(), 'too many copies are protected');
  }

  #use(slot: number): void {
    this.#slots.lists.move(PROTECTED, slot);
    this.#demote();
  }

  #demote(): void {
    const { lists } = this.#slots;
    while (lists.count(PROTECTED) > this.#limit()) lists.move(PROBATION, lists.oldest(PROTECTED));
  }

  #limit(): number {
    return Math.floor(this.#protectedShare * this.#slots.size);
  }
}

/**
 * Copies on probation first.
 * @throws VramError `invalid-argument` where the share is not in [0, 1].
 */
export function slru<Id>(options: SlruOptions<Id> = {}): Replacement<Id> {
  return new Slru(options);
}

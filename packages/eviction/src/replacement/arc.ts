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

class Arc<Id> implements Replacement<Id> {
  readonly #slots: HeldSlots<Id>;
  /** Copies that T1 should hold. */
  #target = 0;
  /** Copies held when a victim was last chosen. */
  #capacity = 0;

  constructor(options: ReplacementOptions<Id>) {
    this.#slots = new HeldSlots(options, OFTEN);
  }

  get size(): number {
    return this.#slots.size;
  }

  inserted(id: Id): void {
    const slot = this.#slots.arriving(id);
    const { lists } = this.#slots;
    const ghost = lists.listOf(slot);
    if (ghost === 0) {
      lists.push(ONCE, slot);
    } else {
      this.#adapt(ghost);
      lists.move(OFTEN, slot);
    }
    this.#trim();
  }

  touched(id: Id): void {
    this.#slots.lists.move(OFTEN, this.#slots.resident(id));
  }

  removed(id: Id, reason: 'capacity' | 'explicit'): void {
    const slot = this.#slots.resident(id);
    const { lists } = this.#slots;
    if (reason === 'explicit') this.#slots.forget(slot);
    else lists.move(lists.listOf(slot) === ONCE ? ONCE_GHOST : OFTEN_GHOST, slot);
    this.#trim();
  }

  chooseVictim(mayEvict: (id: Id) => boolean): Id | undefined {
    this.#capacity = this.#slots.size;
    this.#target = Math.min(this.#target, this.#capacity);
    this.#trim();
    const once = this.#slots.lists.count(ONCE);
    const often = this.#slots.lists.count(OFTEN);
    if (once > this.#target) {
      return this.#take(ONCE, once, mayEvict) ?? this.#take(OFTEN, often, mayEvict);
    }
    const victim = this.#take(OFTEN, often, mayEvict);
    if (victim !== undefined) return victim;
    this.#target = Math.max(0, once - 1);
    return this.#take(ONCE, once, mayEvict);
  }

  check(): void {
    for (const list of [ONCE, OFTEN, ONCE_GHOST, OFTEN_GHOST]) this.#slots.check(list);
    const { lists, size } = this.#slots;
    const ghosts = lists.count(ONCE_GHOST) + lists.count(OFTEN_GHOST);
    const isBounded = ghosts === 0 || size + ghosts <= 2 * this.#capacity;
    assertInvariant(isBounded, 'too many ids are remembered');
    assertInvariant(
      this.#target >= 0 && this.#target <= this.#capacity,
      `target ${this.#target} of ${this.#capacity}`,
    );
  }

  #adapt(ghost: number): void {
    const once = this.#slots.lists.count(ONCE_GHOST);
    const often = this.#slots.lists.count(OFTEN_GHOST);
    this.#target =
      ghost === ONCE_GHOST
        ? Math.min(this.#capacity, this.#target + Math.max(1, often / once))
        : Math.max(0, this.#target - Math.max(1, once / often));
  }

  /** Forgets the oldest ids beyond what is remembered: T1 and B1 in one capacity, all in two. */
  #trim(): void {
    const slots = this.#slots;
    const { lists } = slots;
    while (
      lists.count(ONCE_GHOST) > 0 &&
      lists.count(ONCE) + lists.count(ONCE_GHOST) > this.#capacity
    ) {
      slots.forget(lists.oldest(ONCE_GHOST));
    }
    let ghosts = lists.count(ONCE_GHOST) + lists.count(OFTEN_GHOST);
    for (; ghosts > 0 && slots.size + ghosts > 2 * this.#capacity; ghosts--) {
      slots.forget(lists.oldest(OFTEN_GHOST) || lists.oldest(ONCE_GHOST));
    }
  }

  /** The oldest of a list that may go, among its first `count`; the others move to T2. */
  #take(list: number, count: number, mayEvict: (id: Id) => boolean): Id | undefined {
    const { index, lists } = this.#slots;
    for (let left = count; left > 0; left--) {
      const slot = lists.oldest(list);
      const id = index.idOf(slot);
      if (mayEvict(id)) return id;
      lists.move(OFTEN, slot);
    }
    return undefined;
  }
}

/** Adaptive between recency and frequency. */
export function arc<Id>(options: ReplacementOptions<Id> = {}): Replacement<Id> {
  return new Arc(options);
}

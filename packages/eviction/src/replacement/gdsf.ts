/**
 * GDSF, greedy dual size frequency: the copy of least value per byte goes first, and value fades.
 *
 * The priority of a copy is `clock + uses * reloadCost / sizeBytes`, set when it arrives and at
 * each use. The clock is the priority of the last victim, so that what has not been used for long
 * falls behind what is used now. Many small or dear copies stay for one large or cheap one.
 *
 * A copy that may not go is set aside, until its next use or until as many victims were named as
 * copies were held: then it comes back as used now.
 *
 * What it gets wrong: it serves the sum of costs saved per byte, so a large copy that is used
 * steadily can lose to many small ones that are not.
 *
 * Cost: O(log n), the search amortised. Source: Cherkasova, "Improving WWW Proxies Performance with
 * Greedy-Dual-Size-Frequency Caching Policy" (HP Labs HPL-98-69, 1998). A size of 0 counts as 1.
 */
import { assertArgument, assertInvariant, type ResidentSize } from '@vramkit/core';
import { HeldSlots, type Replacement, type ReplacementOptions } from './held-slots.js';
import { SlotHeap } from './slot-heap.js';
import { SlotNumbers } from './slot-numbers.js';

const HEAP = 1;
const ASIDE = 2;

class Gdsf<Id> implements Replacement<Id> {
  readonly #slots: HeldSlots<Id>;
  readonly #heap = new SlotHeap();
  /** Cost per byte of each slot. */
  readonly #value = new SlotNumbers();
  readonly #uses = new SlotNumbers();
  /** How many victims must have gone before a slot set aside comes back. */
  readonly #comesBack = new SlotNumbers();
  #clock = 0;
  #victims = 0;

  constructor(options: ReplacementOptions<Id>) {
    this.#slots = new HeldSlots(options, ASIDE);
  }

  get size(): number {
    return this.#slots.size;
  }

  inserted(id: Id, { sizeBytes, reloadCost }: ResidentSize): void {
    const value = reloadCost / Math.max(1, sizeBytes);
    assertArgument(
      value >= 0 && Number.isFinite(value),
      `a cost of ${reloadCost} for ${sizeBytes} bytes is no value`,
      { reloadCost: String(reloadCost), sizeBytes: String(sizeBytes) },
    );
    const slot = this.#slots.index.add(id);
    this.#value.set(slot, value);
    this.#uses.set(slot, 1);
    this.#enter(slot);
  }

  touched(id: Id): void {
    const slot = this.#slots.resident(id);
    this.#uses.set(slot, this.#uses.get(slot) + 1);
    this.#leave(slot);
    this.#enter(slot);
  }

  removed(id: Id, reason: 'capacity' | 'explicit'): void {
    const slot = this.#slots.resident(id);
    if (reason === 'capacity') {
      this.#victims += 1;
      const isAside = this.#slots.lists.listOf(slot) === ASIDE;
      if (!isAside) this.#clock = Math.max(this.#clock, this.#heap.priority(slot));
    }
    this.#leave(slot);
    this.#slots.index.drop(slot);
  }

  chooseVictim(mayEvict: (id: Id) => boolean): Id | undefined {
    const { index, lists } = this.#slots;
    for (;;) {
      const slot = lists.oldest(ASIDE);
      if (slot === 0 || this.#comesBack.get(slot) > this.#victims) break;
      this.#leave(slot);
      this.#enter(slot);
    }
    const wasAside = lists.count(ASIDE) > 0;
    for (let slot = this.#heap.lowest; slot !== 0; slot = this.#heap.lowest) {
      const id = index.idOf(slot);
      if (mayEvict(id)) return id;
      this.#leave(slot);
      this.#comesBack.set(slot, this.#victims + this.#slots.size + 1);
      lists.push(ASIDE, slot);
    }
    return wasAside ? this.#slots.search(ASIDE, mayEvict) : undefined;
  }

  check(): void {
    this.#heap.check();
    for (const slot of this.#slots.check(HEAP)) {
      assertInvariant(this.#heap.priority(slot) >= 0, `the priority of slot ${slot}`);
    }
    this.#slots.check(ASIDE);
  }

  #enter(slot: number): void {
    this.#slots.lists.push(HEAP, slot);
    this.#heap.push(slot, this.#clock + this.#uses.get(slot) * this.#value.get(slot));
  }

  #leave(slot: number): void {
    const { lists } = this.#slots;
    if (lists.listOf(slot) === HEAP) this.#heap.take(slot);
    lists.unlink(slot);
  }
}

/** Least value per byte first. */
export function gdsf<Id>(options: ReplacementOptions<Id> = {}): Replacement<Id> {
  return new Gdsf(options);
}

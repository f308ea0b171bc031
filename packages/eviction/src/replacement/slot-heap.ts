/**
 * A binary heap of slots, the lowest priority first; of equal ones the one pushed first.
 *
 * Every slot knows its place, so any one can be taken out. push and take are O(log n).
 */
import { assertInvariant } from '@vramkit/core';
import { SlotNumbers } from './slot-numbers.js';

/** Slots by priority. */
export class SlotHeap {
  readonly #heap: number[] = [];
  readonly #place = new SlotNumbers();
  readonly #priority = new SlotNumbers();
  readonly #turn = new SlotNumbers();
  #turns = 0;

  /** The slot of lowest priority, or 0. */
  get lowest(): number {
    return this.#heap[0] ?? 0;
  }

  /** The priority that a slot was last pushed with. */
  priority(slot: number): number {
    return this.#priority.get(slot);
  }

  /** Adds a slot that is not in the heap. */
  push(slot: number, priority: number): void {
    this.#priority.set(slot, priority);
    this.#turn.set(slot, this.#turns++);
    this.#rise(this.#heap.length, slot);
  }

  /** Takes a slot out that is in the heap. */
  take(slot: number): void {
    const place = this.#place.get(slot);
    const last = this.#heap.pop() ?? 0;
    if (last === slot) return;
    this.#sink(place, last);
    this.#rise(this.#place.get(last), last);
  }

  /** Verifies the order; linear. @throws VramError `invariant`. */
  check(): void {
    this.#heap.forEach((slot, place) => {
      assertInvariant(this.#place.get(slot) === place, `place of slot ${slot}`);
      const parent = this.#heap[(place - 1) >> 1];
      const isInOrder = place === 0 || (parent !== undefined && !this.#isBefore(slot, parent));
      assertInvariant(isInOrder, `slot ${slot} is below ${parent}`);
    });
  }

  #isBefore(a: number, b: number): boolean {
    const difference = this.#priority.get(a) - this.#priority.get(b);
    return difference < 0 || (difference === 0 && this.#turn.get(a) < this.#turn.get(b));
  }

  #set(place: number, slot: number): void {
    this.#heap[place] = slot;
    this.#place.set(slot, place);
  }

  #rise(from: number, slot: number): void {
    let place = from;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      const above = this.#heap[parent] ?? 0;
      if (!this.#isBefore(slot, above)) break;
      this.#set(place, above);
      place = parent;
    }
    this.#set(place, slot);
  }

  #sink(from: number, slot: number): void {
    let place = from;
    for (;;) {
      let child = 2 * place + 1;
      const [left, right] = [this.#heap[child], this.#heap[child + 1]];
      if (left === undefined) break;
      if (right !== undefined && this.#isBefore(right, left)) child++;
      const below = this.#heap[child] ?? 0;
      if (!this.#isBefore(below, slot)) break;
      this.#set(place, below);
      place = child;
    }
    this.#set(place, slot);
  }
}

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

class Lru<Id> implements Replacement<Id> {
  readonly #slots: HeldSlots<Id>;

  constructor(options: ReplacementOptions<Id>) {
    this.#slots = new HeldSlots(options, HELD);
  }

  get size(): number {
    return this.#slots.size;
  }

  inserted(id: Id): void {
    this.#slots.lists.push(HELD, this.#slots.index.add(id));
  }

  touched(id: Id): void {
    this.#slots.lists.move(HELD, this.#slots.resident(id));
  }

  removed(id: Id): void {
    this.#slots.forget(this.#slots.resident(id));
  }

  chooseVictim(mayEvict: (id: Id) => boolean): Id | undefined {
    const { index, lists } = this.#slots;
    for (let left = lists.count(HELD); left > 0; left--) {
      const slot = lists.oldest(HELD);
      const id = index.idOf(slot);
      if (mayEvict(id)) return id;
      lists.move(HELD, slot);
    }
    return undefined;
  }

  check(): void {
    this.#slots.check(HELD);
  }
}

/** Least recently used first. */
export function lru<Id>(options: ReplacementOptions<Id> = {}): Replacement<Id> {
  return new Lru(options);
}

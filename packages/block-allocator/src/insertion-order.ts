/**
 * Least recently used, as a Map's order of insertion: the replacement order of a tier unless the
 * caller hands in another. Policies that weigh frequency, size or cost are `@vramkit/eviction`'s.
 */
import type { ReplacementPolicy } from '@vramkit/core';

/** Names the copy used longest ago among those that may go; walks over those that may not. */
export class InsertionOrder<Id> implements ReplacementPolicy<Id> {
  readonly #order = new Map<Id, undefined>();

  inserted(id: Id): void {
    this.#order.set(id, undefined);
  }

  touched(id: Id): void {
    this.#order.delete(id);
    this.#order.set(id, undefined);
  }

  removed(id: Id): void {
    this.#order.delete(id);
  }

  chooseVictim(mayEvict: (id: Id) => boolean): Id | undefined {
    for (const id of this.#order.keys()) if (mayEvict(id)) return id;
    return undefined;
  }
}

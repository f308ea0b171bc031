/**
 * Least recently used: the plainest replacement policy, for tests of what asks one.
 *
 * It checks that it is told every copy exactly once, and keeps a log of what left. Naming a victim
 * walks from the oldest, so it is linear; a policy for production is not.
 */
import type { ReplacementPolicy } from '../replacement.js';

/** Names the copy that was used longest ago; see the notes of this module. */
export class LruPolicy<Id extends string | number> implements ReplacementPolicy<Id> {
  readonly #order = new Set<Id>();
  readonly #log: string[] = [];

  /** Copies held, the least recently used first. */
  get order(): readonly Id[] {
    return [...this.#order];
  }

  /** What left, as 'id reason'. */
  get log(): readonly string[] {
    return this.#log;
  }

  inserted(id: Id): void {
    if (this.#order.has(id)) throw new Error(`'${id}' was inserted twice`);
    this.#order.add(id);
  }

  touched(id: Id): void {
    if (!this.#order.delete(id)) throw new Error(`'${id}' was touched and is not held`);
    this.#order.add(id);
  }

  removed(id: Id, reason: 'capacity' | 'explicit'): void {
    if (!this.#order.delete(id)) throw new Error(`'${id}' was removed and is not held`);
    this.#log.push(`${id} ${reason}`);
  }

  chooseVictim(mayEvict: (id: Id) => boolean): Id | undefined {
    return this.order.find(mayEvict);
  }
}

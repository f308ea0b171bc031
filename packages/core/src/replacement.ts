/**
 * The interface through which {@link Residency} asks who goes first; policies live elsewhere.
 *
 * A policy is a pure structure beside one tier: it is told of every change, and names victims when
 * asked. It never acts itself, so a plan that is not carried out leaves it right. What may not be
 * evicted now (pinned, moving, chosen already) it learns per question, not by bookkeeping of its
 * own.
 */

/** What a replacement policy may weigh. */
export interface ResidentSize {
  /** Bytes of the copy. */
  readonly sizeBytes: number;
  /** Cost of bringing it back, in the caller's unit; comparable among objects of one tier. */
  readonly reloadCost: number;
}

/**
 * Decides which resident copy of a tier goes first. One instance per tier. It is told of every
 * change and never acts itself: naming a victim removes nothing.
 */
export interface ReplacementPolicy<Id> {
  /** A copy became resident. */
  inserted(id: Id, size: ResidentSize): void;
  /** A resident copy was used. */
  touched(id: Id): void;
  /** A copy is gone: it was a victim (`capacity`), or its owner dropped it (`explicit`). */
  removed(id: Id, reason: 'capacity' | 'explicit'): void;
  /**
   * The next victim among the copies that `mayEvict` allows, or `undefined` where there is none.
   *
   * A copy that is refused is in use: a policy may count that as a use. It need not meet the copy
   * again at every question then, so that the search is constant, amortised, however many copies
   * are pinned.
   */
  chooseVictim(mayEvict: (id: Id) => boolean): Id | undefined;
}

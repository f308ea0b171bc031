/**
 * The free list: ids of free blocks, least recently freed first.
 *
 * A doubly-linked list kept inside two arrays that are indexed by id, so that membership costs no
 * node object and any id leaves in O(1). Entry 0 belongs to the null block, which is never free,
 * and serves as fake head and fake tail at once: the list is a ring through it, and no operation
 * has a special case for an empty list.
 *
 * ```
 *   next:      0 -> first -> ... -> last -> 0      first = next to be handed out
 *   previous:  0 -> last  -> ... -> first -> 0     last  = freed most recently
 * ```
 *
 * Invariants: both directions visit the same ids in opposite order; `length` is their number; the
 * links of an id outside the list are {@link UNLINKED}.
 *
 * The order is that of vLLM v1's free queue. A stack would be about four times faster and was
 * rejected: freed blocks keep their contents for a while, and the order decides which are lost
 * first.
 */
import { assertInvariant, checkInteger, fail } from '@vramkit/core';
import { at, MAX_INDEX, type IndexArray } from './index-array.js';

const RING = 0;
const UNLINKED = -1;

/** Ids `1 .. idCount - 1`, each in the list or out of it; id 0 is never in it. */
export class FreeList {
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  #length: number;

  /**
   * All ids are in the list, in ascending order.
   * @throws VramError `invalid-argument` where `idCount` is not in `[2, 2^31 - 1]`.
   */
  constructor(idCount: number) {
    checkInteger('idCount', idCount, 2, MAX_INDEX);
    this.#next = new Int32Array(idCount);
    this.#previous = new Int32Array(idCount);
    for (let id = 0; id < idCount; id++) {
      this.#next[id] = id + 1 === idCount ? RING : id + 1;
      this.#previous[id] = id === 0 ? idCount - 1 : id - 1;
    }
    this.#length = idCount - 1;
  }

  /** How many ids are in the list. */
  get length(): number {
    return this.#length;
  }

  /** Whether `id` is in the list. O(1). */
  has(id: number): boolean {
    const next = this.#next[id];
    return next !== undefined && next !== UNLINKED && id !== RING;
  }

  /**
   * Takes the first `count` ids into `out[offset ..]`, in order. O(count).
   * @throws VramError `out-of-memory` where fewer are left; nothing has changed then.
   */
  popMany(count: number, out: IndexArray, offset: number): void {
    if (count > this.#length) {
      fail('out-of-memory', `${count} ids asked for, ${this.#length} in the free list`, {
        count,
        length: this.#length,
      });
    }
    const next = this.#next;
    const previous = this.#previous;
    let id = at(next, RING);
    for (let index = 0; index < count; index++) {
      const following = at(next, id);
      out[offset + index] = id;
      next[id] = UNLINKED;
      previous[id] = UNLINKED;
      id = following;
    }
    next[RING] = id;
    previous[id] = RING;
    this.#length -= count;
  }

  /**
   * Takes `id` out, wherever it is. O(1).
   * @throws VramError `invariant` where it is not in the list.
   */
  remove(id: number): void {
    if (!this.has(id)) fail('invariant', `block ${id} is not in the free list`, { id });
    const next = at(this.#next, id);
    const previous = at(this.#previous, id);
    this.#next[previous] = next;
    this.#previous[next] = previous;
    this.#next[id] = UNLINKED;
    this.#previous[id] = UNLINKED;
    this.#length--;
  }

  /**
   * Puts `id` last. O(1).
   * @throws VramError `invariant` where it is in the list already or is not an id.
   */
  append(id: number): void {
    if (this.#next[id] !== UNLINKED) {
      fail('invariant', `block ${id} is in the free list already, or is no block`, { id });
    }
    const last = at(this.#previous, RING);
    this.#next[last] = id;
    this.#previous[id] = last;
    this.#next[id] = RING;
    this.#previous[RING] = id;
    this.#length++;
  }

  /** The ids in order, first to last. O(length), for tests and debugging. */
  toArray(): Uint32Array {
    const ids = new Uint32Array(this.#length);
    let id = at(this.#next, RING);
    for (let index = 0; index < ids.length; index++) {
      ids[index] = id;
      id = at(this.#next, id);
    }
    return ids;
  }

  /**
   * Verifies every invariant of the head comment. O(ids).
   * @throws VramError `invariant` naming the first id that breaks one.
   */
  check(): void {
    let visited = 0;
    let id = RING;
    do {
      const next = at(this.#next, id);
      assertInvariant(next >= 0 && next < this.#next.length, `block ${id} links to ${next}`, {
        id,
      });
      assertInvariant(this.#previous[next] === id, `block ${next} does not link back to ${id}`, {
        id,
        next,
      });
      visited++;
      assertInvariant(visited <= this.#length + 1, 'the free list is longer than its length', {
        length: this.#length,
      });
      id = next;
    } while (id !== RING);
    assertInvariant(visited === this.#length + 1, `${visited - 1} linked, length ${this.#length}`, {
      visited: visited - 1,
      length: this.#length,
    });
    let linked = 0;
    for (let other = 1; other < this.#next.length; other++) {
      const isLinked = this.#next[other] !== UNLINKED;
      assertInvariant(
        isLinked === (this.#previous[other] !== UNLINKED),
        `block ${other} is half linked`,
        { id: other },
      );
      if (isLinked) linked++;
    }
    assertInvariant(linked === this.#length, `${linked} ids carry links, length ${this.#length}`, {
      linked,
      length: this.#length,
    });
  }
}

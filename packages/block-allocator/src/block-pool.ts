/**
 * The block pool: which blocks are free, and how many hold each of the others.
 *
 * A block is a fixed run of token slots. The pool knows ids and counts, never contents: whoever
 * owns the K/V tensors gives them room for `blockCount` blocks and indexes them by these ids. Block
 * 0 is the null block. It is never handed out, counted or freed; a table or a kernel may name it
 * where it needs an id that belongs to nobody, such as padding.
 *
 * Invariants: a block is in the free list exactly while its reference count is 0; the null block
 * has count 0 and is in no list; a call that fails leaves everything as it was.
 *
 * Order: freed blocks go to the end of the list, and of the blocks freed by one call the last goes
 * first. The tail of a sequence is thus reused before its head, which is least recently used order
 * and, among equally old blocks, keeps the longest prefixes intact (vLLM v1 does the same).
 *
 * Every operation is O(1) per block and leaves no garbage; a block costs 12 bytes.
 */
import { assertArgument, assertInvariant, checkInteger, fail, VramError } from '@vramkit/core';
import { FreeList } from './free-list.js';
import { at, MAX_INDEX, type IndexArray, type IndexList } from './index-array.js';

/** The id of the block that belongs to nobody. */
export const NULL_BLOCK = 0;

/** Sizes of a {@link BlockPool}. */
export interface BlockPoolOptions {
  /** Blocks, the null block included: `blockCount - 1` can be handed out. At least 2. */
  readonly blockCount: number;
  /**
   * Tokens of a block. `blockCount * blockSize` must not exceed 2^31, so that a slot is an index.
   */
  readonly blockSize: number;
}

/**
 * Reference-counted block ids with a free list in LRU order.
 *
 * @example
 * ```ts
 * import { BlockPool } from '@vramkit/block-allocator';
 * const pool = new BlockPool({ blockCount: 1024, blockSize: 16 });
 * const ids = pool.tryAllocate(4);
 * if (ids !== undefined) pool.free(ids);
 * ```
 */
export class BlockPool {
  /** Blocks, the null block included. */
  readonly blockCount: number;
  /** Tokens of a block. */
  readonly blockSize: number;
  readonly #references: Int32Array;
  readonly #free: FreeList;

  /** @throws VramError `invalid-argument` where a size is out of its range. */
  constructor(options: BlockPoolOptions) {
    this.blockCount = checkInteger('blockCount', options.blockCount, 2, MAX_INDEX);
    this.blockSize = checkInteger('blockSize', options.blockSize, 1, MAX_INDEX);
    const slots = this.blockCount * this.blockSize;
    assertArgument(
      slots <= MAX_INDEX + 1,
      `${this.blockCount} blocks of ${this.blockSize} tokens exceed ${MAX_INDEX + 1} slots`,
      { blockCount: this.blockCount, blockSize: this.blockSize },
    );
    this.#references = new Int32Array(this.blockCount);
    this.#free = new FreeList(this.blockCount);
  }

  /** Blocks that can be handed out now. */
  get freeCount(): number {
    return this.#free.length;
  }

  /** Blocks in use, as a fraction in `[0, 1]` of those that can be handed out. */
  get usage(): number {
    return 1 - this.#free.length / (this.blockCount - 1);
  }

  /**
   * Takes `count` blocks, each with one reference, into `out[offset ..]`, or takes none.
   * @param out Receives the ids; a new array where left out, which is garbage in a hot path.
   * @returns `out`, or `undefined` where fewer than `count` blocks are free.
   * @throws VramError `invalid-argument` where `count` is no count or `out` has no room.
   */
  tryAllocate(count: number): Uint32Array | undefined;
  tryAllocate<A extends IndexArray>(count: number, out: A, offset?: number): A | undefined;
  tryAllocate(count: number, out?: IndexArray, offset = 0): IndexArray | undefined {
    checkInteger('count', count);
    if (count > this.#free.length) return undefined;
    const ids = out ?? new Uint32Array(count);
    if (!Number.isSafeInteger(offset) || offset < 0 || offset + count > ids.length) {
      fail('invalid-argument', `${count} ids at ${offset} do not fit ${ids.length} entries`, {
        count,
        offset,
        capacity: ids.length,
      });
    }
    this.#free.popMany(count, ids, offset);
    for (let index = 0; index < count; index++) this.#references[at(ids, offset + index)] = 1;
    return ids;
  }

  /**
   * {@link tryAllocate}, for callers to whom exhaustion is an error.
   * @throws VramError `out-of-memory`, retryable, where fewer than `count` blocks are free;
   *   `invalid-argument` as {@link tryAllocate}.
   */
  allocate(count: number): Uint32Array;
  allocate<A extends IndexArray>(count: number, out: A, offset?: number): A;
  allocate(count: number, out?: IndexArray, offset = 0): IndexArray {
    const ids = out === undefined ? this.tryAllocate(count) : this.tryAllocate(count, out, offset);
    return ids ?? failExhausted(this, count);
  }

  /**
   * Adds a reference to each of `ids[start .. end)`; an id may occur more than once.
   * @throws VramError `invalid-argument` for an id that is no block or is the null block,
   *   `invariant` for a block that is free. No count has changed then.
   */
  retain(ids: IndexList, start = 0, end = ids.length): void {
    checkRange(ids, start, end);
    const references = this.#references;
    for (let index = start; index < end; index++) {
      const count = references[at(ids, index)];
      if (count === undefined || count < 1 || count === MAX_INDEX) {
        for (let done = start; done < index; done++) this.#add(at(ids, done), -1);
        this.#rejectHeld(at(ids, index), 'retained');
      }
      references[at(ids, index)] = count + 1;
    }
  }

  /**
   * Drops a reference of each of `ids[start .. end)`. Blocks that reach zero join the free list,
   * the last of them first; they keep their contents until they are handed out again.
   * @throws VramError `invalid-argument` for an id that is no block or is the null block,
   *   `invariant` for one freed more often than it is held. No count has changed then.
   */
  free(ids: IndexList, start = 0, end = ids.length): void {
    checkRange(ids, start, end);
    const references = this.#references;
    for (let index = start; index < end; index++) {
      const count = references[at(ids, index)];
      if (count === undefined || count < 1) {
        for (let done = start; done < index; done++) this.#add(at(ids, done), 1);
        this.#rejectHeld(at(ids, index), 'freed');
      }
      references[at(ids, index)] = count - 1;
    }
    for (let index = end - 1; index >= start; index--) {
      const id = at(ids, index);
      // An id that occurs twice is at zero both times and joins the list once.
      if (references[id] === 0 && !this.#free.has(id)) this.#free.append(id);
    }
  }

  /**
   * Takes a free block out of the middle of the free list, contents and all, with one reference:
   * how something that remembers a block's contents gets it back before it is handed out again.
   * O(1).
   * @throws VramError `invalid-argument` for an id that is no block or is the null block,
   *   `invariant` for a block that is not free.
   */
  revive(id: number): void {
    this.#checkId(id);
    if (!this.#free.has(id)) {
      fail('invariant', `block ${id} is not free: it has ${this.#references[id]} references`, {
        id,
        references: this.#references[id],
      });
    }
    this.#free.remove(id);
    this.#references[id] = 1;
  }

  /**
   * How many hold block `id`; 0 for a free block and for the null block.
   * @throws VramError `invalid-argument` where `id` is no block.
   */
  referenceCount(id: number): number {
    const count = this.#references[id];
    if (count === undefined) this.#checkId(id);
    return count ?? 0;
  }

  /**
   * Free blocks in the order in which they will be handed out. O(free), for tests and debugging.
   */
  freeIds(): Uint32Array {
    return this.#free.toArray();
  }

  /**
   * Verifies every invariant of the head comment. O(blocks).
   * @throws VramError `invariant` naming the first block that breaks one.
   */
  check(): void {
    this.#free.check();
    assertInvariant(this.#references[NULL_BLOCK] === 0, 'the null block is referenced');
    for (let id = 1; id < this.blockCount; id++) {
      const references = at(this.#references, id);
      assertInvariant(references >= 0, `block ${id} has ${references} references`, { id });
      assertInvariant(
        (references === 0) === this.#free.has(id),
        `block ${id} has ${references} references and is ${this.#free.has(id) ? '' : 'not '}free`,
        { id, references },
      );
    }
  }

  #add(id: number, change: number): void {
    this.#references[id] = at(this.#references, id) + change;
  }

  #checkId(id: number): void {
    checkInteger('block id', id, 1, this.blockCount - 1);
  }

  #rejectHeld(id: number, verb: 'retained' | 'freed'): never {
    this.#checkId(id);
    const references = this.referenceCount(id);
    fail('invariant', `block ${id} cannot be ${verb}: it has ${references} references`, {
      id,
      references,
    });
  }
}

/** Throws what every throwing twin of an allocation throws. */
export function failExhausted(pool: BlockPool, neededBlocks: number): never {
  const usable = pool.blockCount - 1;
  throw new VramError(
    'out-of-memory',
    `needed ${neededBlocks} KV blocks, ${pool.freeCount} free of ${usable}; ` +
      'free or evict sequences, or raise blockCount',
    {
      context: { neededBlocks, freeBlocks: pool.freeCount, blockCount: pool.blockCount },
      retryable: true,
    },
  );
}

function checkRange(ids: IndexList, start: number, end: number): void {
  if (!(start >= 0 && start <= end && end <= ids.length)) {
    fail('invalid-argument', `[${start}, ${end}) is no range of ${ids.length} ids`, {
      start,
      end,
      length: ids.length,
    });
  }
}

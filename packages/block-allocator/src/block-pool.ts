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
 * Order: a free block either holds contents that somebody may want again (it is _kept_, with a rank
 * from 1 up) or not (rank 0). Blocks of rank 0 are handed out first, so that a partial block never
 * pushes out a cached one; then kept ones, lowest rank first. Within a rank the least recently
 * freed goes first, and of the blocks freed by one call the last goes first: the tail of a sequence
 * before its head, which keeps the longest prefixes intact (vLLM v1 does the same).
 *
 * Decay: with a `rankLifetime`, the oldest block of each rank falls one rank when that many kept
 * blocks have been handed out since it came there, so that a rank is a promise for a while and not
 * a leak. This is the demotion of the Multi-Queue algorithm (Zhou, Philbin and Li, 2001), with the
 * count of evictions as its clock.
 *
 * Every operation is O(1) per block and leaves no garbage; a block costs 16 bytes.
 *
 * Length: counts, order and ranks live in one record and change together.
 */
import { assertArgument, assertInvariant, checkInteger, fail, VramError } from '@vramkit/core';
import { FreeList, OWNER_WORD, RECORD_WORDS } from './free-list.js';
import { at, intAt, MAX_INDEX, type IndexArray, type IndexList } from './index-array.js';

/** The id of the block that belongs to nobody. */
export const NULL_BLOCK = 0;

/** The highest rank of a block whose contents are worth keeping; the lowest is 1. */
export const MAX_RANK = 7;

// A record of the free list: how many hold the block, and its rank below the time it got there.
const REFERENCES = OWNER_WORD;
const RANK = OWNER_WORD + 1;
const RANK_BITS = 3;
const RANK_MASK = MAX_RANK;
// Eviction times wrap; only differences are used.
const TIME_MASK = 2 ** (31 - RANK_BITS) - 1;

/** Whoever remembers what kept blocks hold; see {@link BlockPool.attachKeeper}. */
export interface BlockKeeper {
  /**
   * The kept block to hand out next, which must be free; `undefined` leaves it to the pool's order.
   */
  chooseVictim(): number | undefined;
  /** Block `id` is being handed out; what it held is lost. Must not change the pool. */
  evicted(id: number): void;
}

/** Sizes of a {@link BlockPool}. */
export interface BlockPoolOptions {
  /** Blocks, the null block included: `blockCount - 1` can be handed out. At least 2. */
  readonly blockCount: number;
  /**
   * Tokens of a block. `blockCount * blockSize` must not exceed 2^31, so that a slot is an index.
   */
  readonly blockSize: number;
  /**
   * Kept blocks handed out until a kept block falls one rank. Default: Infinity, ranks last.
   */
  readonly rankLifetime?: number;
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
  readonly #free: FreeList;
  readonly #records: Int32Array;
  readonly #rankLifetime: number;
  #keeper: BlockKeeper | undefined;
  #evictedCount = 0;

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
    const { rankLifetime = Infinity } = options;
    assertArgument(rankLifetime >= 1, `rankLifetime ${rankLifetime} is below 1`, { rankLifetime });
    this.#rankLifetime = rankLifetime;
    this.#free = new FreeList(this.blockCount, MAX_RANK + 1);
    this.#records = this.#free.records;
  }

  /** Blocks that can be handed out now. */
  get freeCount(): number {
    return this.#free.length;
  }

  /** Free blocks whose contents are kept until they are handed out. */
  get keptCount(): number {
    return this.#free.length - this.#free.lengthOf(0);
  }

  /** Kept blocks handed out since the pool was made. */
  get evictedCount(): number {
    return this.#evictedCount;
  }

  /** Blocks in use, as a fraction in `[0, 1]` of those that can be handed out. */
  get usage(): number {
    return 1 - this.#free.length / (this.blockCount - 1);
  }

  /**
   * Takes `count` blocks, each with one reference, into `out[offset ..]`, or takes none. Without
   * `out` it makes a new array, which is garbage in a hot path.
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
    const worthless = Math.min(count, this.#free.lengthOf(0));
    if (worthless > 0) this.#free.popMany(worthless, ids, offset, 1);
    for (let index = worthless; index < count; index++) ids[offset + index] = this.#evict();
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
    const records = this.#records;
    for (let index = start; index < end; index++) {
      const id = ids[index] ?? NULL_BLOCK;
      const record = id * RECORD_WORDS + REFERENCES;
      const count = records[record];
      if ((id | 0) !== id || count === undefined || count < 1 || count === MAX_INDEX) {
        for (let done = start; done < index; done++) this.#add(at(ids, done), -1);
        this.#rejectHeld(id, 'retained');
      }
      records[record] = count + 1;
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
    const records = this.#records;
    // Most often all blocks go to the same ring: bits of the ranks of all, and of any.
    let allBits = RANK_MASK;
    let anyBits = 0;
    let held = 0;
    for (let index = start; index < end; index++) {
      const id = ids[index] ?? NULL_BLOCK;
      const record = id * RECORD_WORDS;
      const count = records[record + REFERENCES];
      if ((id | 0) !== id || count === undefined || count < 1) {
        for (let done = start; done < index; done++) this.#add(at(ids, done), 1);
        this.#rejectHeld(id, 'freed');
      }
      records[record + REFERENCES] = count - 1;
      held |= count - 1;
      const rank = intAt(records, record + RANK) & RANK_MASK;
      allBits &= rank;
      anyBits |= rank;
    }
    if (held === 0 && allBits === anyBits && this.#rankLifetime === Infinity) {
      this.#free.appendBackwards(ids, start, end, allBits);
      return;
    }
    for (let index = end - 1; index >= start; index--) {
      const id = ids[index] ?? NULL_BLOCK;
      // An id that occurs twice is at zero both times and joins the list once.
      if (records[id * RECORD_WORDS + REFERENCES] === 0 && !this.#free.has(id)) this.#release(id);
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
      const references = this.referenceCount(id);
      fail('invariant', `block ${id} is not free: it has ${references} references`, {
        id,
        references,
      });
    }
    this.#free.remove(id, this.rankOf(id));
    this.#records[id * RECORD_WORDS + REFERENCES] = 1;
  }

  /**
   * Adds a reference to a block, whether it is held or free. O(1).
   * @throws VramError `invalid-argument` for an id that is no block or is the null block.
   */
  hold(id: number): void {
    this.#checkId(id);
    const record = id * RECORD_WORDS;
    const references = intAt(this.#records, record + REFERENCES);
    if (references === 0) this.#free.remove(id, intAt(this.#records, record + RANK) & RANK_MASK);
    this.#records[record + REFERENCES] = references + 1;
  }

  /** The kept block that goes first by the pool's own order, or 0 where none is kept. */
  oldestKept(): number {
    return this.keptCount === 0 ? NULL_BLOCK : this.#firstKept();
  }

  /**
   * Says what the contents of a block are worth: 0, nothing; from 1 up, they are kept until the
   * block is handed out, lower ranks first. A block that is handed out has rank 0. O(1).
   * @throws VramError `invalid-argument` for an id that is no block, or a rank out of range.
   */
  rank(id: number, rank: number): void {
    this.#checkId(id);
    checkInteger('rank', rank, 0, MAX_RANK);
    const isFree = this.#free.has(id);
    if (isFree) this.#free.remove(id, this.rankOf(id));
    this.#records[id * RECORD_WORDS + RANK] = rank;
    if (isFree) this.#release(id);
  }

  /** Rank of a block; see {@link rank}. @throws VramError `invalid-argument` as {@link rank}. */
  rankOf(id: number): number {
    this.#checkId(id);
    return intAt(this.#records, id * RECORD_WORDS + RANK) & RANK_MASK;
  }

  /**
   * Names the one that remembers what kept blocks hold: it is told of each that is handed out, and
   * may choose which goes next.
   * @throws VramError `invalid-argument` where there is one already.
   */
  attachKeeper(keeper: BlockKeeper): void {
    assertArgument(this.#keeper === undefined, 'the pool has a keeper already');
    this.#keeper = keeper;
  }

  /**
   * How many hold block `id`; 0 for a free block and for the null block.
   * @throws VramError `invalid-argument` where `id` is no block.
   */
  referenceCount(id: number): number {
    if (id !== NULL_BLOCK) this.#checkId(id);
    return intAt(this.#records, id * RECORD_WORDS + REFERENCES);
  }

  /**
   * Free blocks in the order in which they will be handed out. O(free), for tests and debugging.
   */
  freeIds(): Uint32Array {
    const ids = new Uint32Array(this.#free.length);
    let offset = 0;
    for (let rank = 0; rank <= MAX_RANK; rank++) {
      const ofRank = this.#free.toArray(rank);
      ids.set(ofRank, offset);
      offset += ofRank.length;
    }
    return ids;
  }

  /**
   * Puts reference counts and the order of free blocks in place of what they are. Every block must
   * be held once, as by one that restores a state and has ranked them.
   * @throws VramError `invalid-argument` where a block is in neither list or in both, or not held.
   */
  restore(references: IndexList, freeIds: IndexList): void {
    checkInteger('references.length', references.length, this.blockCount, this.blockCount);
    checkInteger('freeCount', this.freeCount, 0, 0);
    let held = 0;
    for (let id = 1; id < this.blockCount; id++) if (at(references, id) > 0) held++;
    checkInteger('free blocks', freeIds.length, this.blockCount - 1 - held);
    for (let index = 0; index < freeIds.length; index++) {
      checkInteger('references', references[at(freeIds, index)] ?? -1, 0, 0);
      this.free(freeIds, index, index + 1);
    }
    for (let id = 1; id < this.blockCount; id++) {
      this.#records[id * RECORD_WORDS + REFERENCES] = at(references, id);
    }
    this.check();
  }

  /**
   * Verifies every invariant of the head comment. O(blocks).
   * @throws VramError `invariant` naming the first block that breaks one.
   */
  check(): void {
    this.#free.check();
    assertInvariant(this.referenceCount(NULL_BLOCK) === 0, 'the null block is referenced');
    for (let id = 1; id < this.blockCount; id++) {
      const references = this.referenceCount(id);
      assertInvariant(references >= 0, `block ${id} has ${references} references`, { id });
      assertInvariant(
        (references === 0) === this.#free.has(id),
        `block ${id} has ${references} references and is ${this.#free.has(id) ? '' : 'not '}free`,
        { id, references },
      );
    }
  }

  #add(id: number, change: number): void {
    const record = id * RECORD_WORDS + REFERENCES;
    this.#records[record] = intAt(this.#records, record) + change;
  }

  /** Puts a block that nobody holds last in the ring of its rank, stamped with the time. */
  #release(id: number): void {
    const record = id * RECORD_WORDS + RANK;
    const rank = intAt(this.#records, record) & RANK_MASK;
    this.#records[record] = ((this.#evictedCount & TIME_MASK) << RANK_BITS) | rank;
    this.#free.append(id, rank);
  }

  /** Hands out one kept block, which the caller knows to exist. */
  #evict(): number {
    if (this.#rankLifetime !== Infinity) this.#decay();
    const id = this.#keeper?.chooseVictim() ?? this.#firstKept();
    const rank = this.rankOf(id);
    if (rank === 0) {
      fail('invariant', `block ${id} was chosen to be handed out, and is not kept`, { id });
    }
    this.#free.remove(id, rank);
    this.#records[id * RECORD_WORDS + RANK] = 0;
    this.#records[id * RECORD_WORDS + REFERENCES] = 1;
    this.#evictedCount++;
    this.#keeper?.evicted(id);
    return id;
  }

  #firstKept(): number {
    let rank = 1;
    while (this.#free.lengthOf(rank) === 0) rank++;
    return this.#free.first(rank);
  }

  #decay(): void {
    for (let rank = 2; rank <= MAX_RANK; rank++) {
      const id = this.#free.first(rank);
      if (id === NULL_BLOCK) continue;
      const since = intAt(this.#records, id * RECORD_WORDS + RANK) >> RANK_BITS;
      if (((this.#evictedCount - since) & TIME_MASK) >= this.#rankLifetime) this.rank(id, rank - 1);
    }
  }

  #checkId(id: number): void {
    if ((id | 0) === id && id > 0 && id < this.blockCount) return;
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

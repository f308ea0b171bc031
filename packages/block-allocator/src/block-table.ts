/**
 * The block table: where the tokens of one sequence are.
 *
 * Two counts must not be confused. `tokenCount` is how many tokens the sequence has ever seen; it
 * is the position of the next one, which is what rotary embeddings see. `cachedTokenCount` is how
 * many it still holds; it is what attention reads. They differ once a policy has evicted something:
 * the table gets shorter, and the tokens that stay keep the positions they had.
 *
 * ```
 *   blocks      [ 7      ][ 2      ][ 9      ]      block ids, logical order
 *   cached       0  1  2  3  4  5  6  7  8          index of a held token
 *   positions    0  1  2  3  8  9 10 11 12          4..7 were evicted; tokenCount 13
 *   slot of 5    2 * blockSize + 1
 * ```
 *
 * Invariants: `blockCount = ceil(cachedTokenCount / blockSize)`, so every block but the last is
 * full; positions ascend strictly and are below `tokenCount`; no block occurs twice; none is the
 * null block.
 *
 * The table does not know the pool. Whoever changes a table holds and drops the references that go
 * with it; {@link KvSequences} is what does so here.
 */
import { assertInvariant, checkInteger, fail } from '@vramkit/core';
import { NULL_BLOCK } from './block-pool.js';
import { at, grown, uintAt, MAX_INDEX, type IndexArray, type IndexList } from './index-array.js';

/** A {@link BlockTable} as plain data. */
export interface BlockTableState {
  readonly blocks: readonly number[];
  readonly positions: readonly number[];
  readonly tokenCount: number;
}

/** The block ids and token positions of one sequence. */
export class BlockTable {
  /** Tokens of a block. */
  readonly blockSize: number;
  #blocks = new Uint32Array(4);
  #positions = new Uint32Array(16);
  #blockCount = 0;
  #cachedTokenCount = 0;
  #tokenCount = 0;
  /** Leading entries of the positions that equal their index, held or not. */
  #inPlace = 0;

  /** @throws VramError `invalid-argument` where `blockSize` is not at least 1. */
  constructor(options: { readonly blockSize: number }) {
    this.blockSize = checkInteger('blockSize', options.blockSize, 1, MAX_INDEX);
  }

  /** Tokens ever seen: the position of the next token. */
  get tokenCount(): number {
    return this.#tokenCount;
  }

  /** Tokens held. */
  get cachedTokenCount(): number {
    return this.#cachedTokenCount;
  }

  /** Blocks held. */
  get blockCount(): number {
    return this.#blockCount;
  }

  /** Empty slots of the last block. */
  get freeSlotCount(): number {
    return this.#blockCount * this.blockSize - this.#cachedTokenCount;
  }

  /**
   * Leading tokens before the first hole. Only blocks that lie wholly within them may be offered as
   * a prefix to other sequences: what follows a hole was computed from tokens that are gone.
   * O(log tokens).
   */
  get unbrokenTokenCount(): number {
    if (this.#cachedTokenCount === this.#tokenCount) return this.#cachedTokenCount;
    let low = 0;
    let high = this.#cachedTokenCount;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (uintAt(this.#positions, middle) === middle) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The block ids, in order: a view that the next change of the table invalidates. */
  get blocks(): Uint32Array {
    return this.#blocks.subarray(0, this.#blockCount);
  }

  /** The position of each held token: a view that the next change of the table invalidates. */
  get positions(): Uint32Array {
    return this.#positions.subarray(0, this.#cachedTokenCount);
  }

  /** @throws VramError `invalid-argument` where there is no block `index`. */
  blockAt(index: number): number {
    checkInteger('block index', index, 0, this.#blockCount - 1);
    return uintAt(this.#blocks, index);
  }

  /** @throws VramError `invalid-argument` where there is no held token `index`. */
  positionAt(index: number): number {
    checkInteger('token index', index, 0, this.#cachedTokenCount - 1);
    return uintAt(this.#positions, index);
  }

  /**
   * The slot of held token `index`: block id x blockSize + offset.
   * @throws VramError `invalid-argument` where there is no such token.
   */
  slotAt(index: number): number {
    checkInteger('token index', index, 0, this.#cachedTokenCount - 1);
    const offset = index % this.blockSize;
    return uintAt(this.#blocks, (index - offset) / this.blockSize) * this.blockSize + offset;
  }

  /**
   * Writes the positions of held tokens `[start, start + count)` to `out[offset ..]`.
   * @throws VramError `invalid-argument` where there are no such tokens.
   */
  copyPositions(start: number, count: number, out: IndexArray, offset: number): void {
    this.#checkTokens(start, count);
    if (this.#cachedTokenCount === this.#tokenCount) {
      for (let index = 0; index < count; index++) out[offset + index] = start + index;
      return;
    }
    for (let index = 0; index < count; index++) {
      out[offset + index] = uintAt(this.#positions, start + index);
    }
  }

  /**
   * Writes the slots of held tokens `[start, start + count)` to `out[offset ..]`.
   * @throws VramError `invalid-argument` where there are no such tokens.
   */
  copySlots(start: number, count: number, out: IndexArray, offset: number): void {
    this.#checkTokens(start, count);
    const { blockSize } = this;
    let block = Math.floor(start / blockSize);
    let within = start - block * blockSize;
    let written = 0;
    while (written < count) {
      const first = uintAt(this.#blocks, block++) * blockSize + within;
      const some = Math.min(count - written, blockSize - within);
      for (let index = 0; index < some; index++) out[offset + written + index] = first + index;
      written += some;
      within = 0;
    }
  }

  /** How many held tokens have a position below `position`. O(log tokens), or 1 without holes. */
  cachedTokensBefore(position: number): number {
    if (position >= this.#tokenCount) return this.#cachedTokenCount;
    if (this.#cachedTokenCount === this.#tokenCount) return position;
    let low = 0;
    let high = this.#cachedTokenCount;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (uintAt(this.#positions, middle) < position) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Whether one block holds, from held token `index` on, positions `[first, first + count)`. */
  holdsRun(index: number, first: number, count: number): boolean {
    if (index % this.blockSize > 0 || index + count > this.#cachedTokenCount) return false;
    if (this.#cachedTokenCount === this.#tokenCount) return index === first;
    return (
      uintAt(this.#positions, index) === first &&
      uintAt(this.#positions, index + count - 1) === first + count - 1
    );
  }

  /** Blocks that `count` more tokens need beside those held. */
  blocksFor(count: number): number {
    const missing = count - this.freeSlotCount;
    return missing <= 0 ? 0 : Math.ceil(missing / this.blockSize);
  }

  /** Makes room for `count` more tokens, so that {@link append} cannot fail for want of memory. */
  reserve(count: number): void {
    this.#positions = grown(this.#positions, this.#cachedTokenCount + count);
    this.#blocks = grown(this.#blocks, this.#blockCount + this.blocksFor(count));
  }

  /**
   * Adds `count` tokens at the next positions, and the blocks `ids[start ..]` that they need:
   * exactly {@link blocksFor} of them.
   * @throws VramError `invalid-argument` where `count` is no count, positions would exceed 2^31 -
   *   1, or `ids` is too short.
   */
  append(count: number, ids: IndexList, start = 0): void {
    checkInteger('count', count, 0, MAX_INDEX - this.#tokenCount);
    const blocks = this.blocksFor(count);
    if (start < 0 || start + blocks > ids.length) {
      fail('invalid-argument', `${count} tokens need ${blocks} blocks, ${ids.length} given`, {
        count,
        blocks,
        given: ids.length,
      });
    }
    this.reserve(count);
    for (let index = 0; index < blocks; index++) {
      this.#blocks[this.#blockCount + index] = at(ids, start + index);
    }
    this.#writePositions(count);
    this.#blockCount += blocks;
    this.#cachedTokenCount += count;
    this.#tokenCount += count;
  }

  /**
   * Goes on at position `tokenCount` without the tokens before it, which somebody else computed and
   * nobody here will look at: those that a window has passed.
   * @throws VramError `invalid-argument` where the position is behind, or the last block partial.
   */
  skip(tokenCount: number): void {
    checkInteger('tokenCount', tokenCount, this.#tokenCount, MAX_INDEX);
    checkInteger('freeSlotCount', this.freeSlotCount, 0, 0);
    this.#tokenCount = tokenCount;
  }

  /** Forgets everything and keeps the memory, for the next sequence. */
  clear(): void {
    this.#blockCount = 0;
    this.#cachedTokenCount = 0;
    this.#tokenCount = 0;
  }

  /**
   * Puts block `id` in place of block `index`, for a copy of its contents.
   * @throws VramError `invalid-argument` where there is no such block.
   */
  replaceBlock(index: number, id: number): void {
    checkInteger('block index', index, 0, this.#blockCount - 1);
    this.#blocks[index] = id;
  }

  /**
   * Takes `count` blocks from `index` on and their tokens out. The others keep order and positions;
   * `tokenCount` stays. O(tokens behind them).
   * @throws VramError `invalid-argument` where there are no such blocks.
   */
  removeBlocks(index: number, count: number): void {
    checkInteger('block index', index, 0, this.#blockCount);
    checkInteger('count', count, 0, this.#blockCount - index);
    const first = Math.min(index * this.blockSize, this.#cachedTokenCount);
    const end = Math.min(first + count * this.blockSize, this.#cachedTokenCount);
    this.#blocks.copyWithin(index, index + count, this.#blockCount);
    this.#positions.copyWithin(first, end, this.#cachedTokenCount);
    this.#inPlace = Math.min(this.#inPlace, first);
    this.#blockCount -= count;
    this.#cachedTokenCount -= end - first;
  }

  /**
   * Forgets every position from `tokenCount` on, and with them the blocks that only they used.
   * @throws VramError `invalid-argument` where the sequence has not seen that many tokens.
   */
  truncate(tokenCount: number): void {
    checkInteger('tokenCount', tokenCount, 0, this.#tokenCount);
    this.#cachedTokenCount = this.cachedTokensBefore(tokenCount);
    this.#blockCount = Math.ceil(this.#cachedTokenCount / this.blockSize);
    this.#tokenCount = tokenCount;
  }

  /**
   * Keeps the held tokens `kept` (strictly ascending indices): the first `keptBlocks` blocks stay,
   * `ids[start ..]` follow. `tokenCount` stays.
   * @throws VramError `invalid-argument` where `ids` holds too few blocks or `kept` is longer than
   *   what is held.
   */
  keep(kept: IndexList, keptBlocks: number, ids: IndexList, start = 0): void {
    checkInteger('kept.length', kept.length, 0, this.#cachedTokenCount);
    const blockCount = Math.ceil(kept.length / this.blockSize);
    const fresh = blockCount - checkInteger('keptBlocks', keptBlocks, 0, blockCount);
    checkInteger('start', start, 0, ids.length - fresh);
    for (let index = 0; index < fresh; index++) {
      this.#blocks[keptBlocks + index] = at(ids, start + index);
    }
    // Ascending indices never fall below their own place, so moving towards the front is safe.
    for (let index = 0; index < kept.length; index++) {
      this.#positions[index] = uintAt(this.#positions, at(kept, index));
    }
    this.#inPlace = 0;
    this.#blockCount = blockCount;
    this.#cachedTokenCount = kept.length;
  }

  /**
   * A table of the same blocks up to position `tokenCount`.
   * @throws VramError `invalid-argument` where the sequence has not seen that many tokens.
   */
  prefix(tokenCount: number): BlockTable {
    checkInteger('tokenCount', tokenCount, 0, this.#tokenCount);
    const table = new BlockTable({ blockSize: this.blockSize });
    table.#cachedTokenCount = this.cachedTokensBefore(tokenCount);
    table.#blockCount = Math.ceil(table.#cachedTokenCount / this.blockSize);
    table.#tokenCount = tokenCount;
    table.#blocks = grown(this.#blocks.slice(0, table.#blockCount), 4);
    table.#positions = grown(this.#positions.slice(0, table.#cachedTokenCount), 16);
    return table;
  }

  #checkTokens(start: number, count: number): void {
    checkInteger('start', start, 0, this.#cachedTokenCount);
    checkInteger('count', count, 0, this.#cachedTokenCount - start);
  }

  /** Positions of `count` new tokens. Without a hole they are indices, written once per table. */
  #writePositions(count: number): void {
    const first = this.#cachedTokenCount;
    const end = first + count;
    const shift = this.#tokenCount - first;
    const start = shift === 0 ? Math.max(first, this.#inPlace) : first;
    for (let index = start; index < end; index++) this.#positions[index] = index + shift;
    if (shift !== 0) this.#inPlace = Math.min(this.#inPlace, first);
    else if (this.#inPlace >= first) this.#inPlace = Math.max(this.#inPlace, end);
  }

  /** The table as plain data. */
  save(): BlockTableState {
    const { tokenCount } = this;
    return { blocks: [...this.blocks], positions: [...this.positions], tokenCount };
  }

  /**
   * A table from what {@link save} gave.
   * @throws VramError `invariant` where the state breaks an invariant.
   */
  static restore(state: BlockTableState, blockSize: number): BlockTable {
    const table = new BlockTable({ blockSize });
    table.#blocks = grown(Uint32Array.from(state.blocks), 4);
    table.#positions = grown(Uint32Array.from(state.positions), 16);
    table.#blockCount = state.blocks.length;
    table.#cachedTokenCount = state.positions.length;
    table.#tokenCount = state.tokenCount;
    table.check();
    return table;
  }

  /**
   * Verifies every invariant of the head comment. O(tokens).
   * @throws VramError `invariant` naming the first block or token that breaks one.
   */
  check(): void {
    const needed = Math.ceil(this.#cachedTokenCount / this.blockSize);
    assertInvariant(
      this.#blockCount === needed,
      `${this.#blockCount} blocks for ${this.#cachedTokenCount} tokens`,
      { blockCount: this.#blockCount, cachedTokenCount: this.#cachedTokenCount },
    );
    const seen = new Set<number>([NULL_BLOCK]);
    for (const id of this.blocks) {
      assertInvariant(!seen.has(id), `block ${id} occurs twice or is the null block`, { id });
      seen.add(id);
    }
    let previous = -1;
    for (const position of this.positions) {
      assertInvariant(
        position > previous && position < this.#tokenCount,
        `position ${position} follows ${previous} of ${this.#tokenCount}`,
        { position, previous, tokenCount: this.#tokenCount },
      );
      previous = position;
    }
  }
}

/** A {@link BlockTable} that somebody else changes. */
export type BlockTableView = Omit<
  BlockTable,
  | 'reserve'
  | 'append'
  | 'replaceBlock'
  | 'removeBlocks'
  | 'truncate'
  | 'keep'
  | 'prefix'
  | 'skip'
  | 'clear'
>;

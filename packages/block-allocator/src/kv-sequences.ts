/**
 * Sequences over one block pool: tables and reference counts changed together.
 *
 * A sequence is a handle to a block table. Every call either does all of what it says, to the pool
 * and to the table, or nothing. What has to happen to K and V comes back as data: slots to write,
 * blocks to copy, tokens to gather. Nothing here touches a byte of them.
 *
 * Sharing: a fork shares the full blocks by reference and gets a copy of the partial one. A shared
 * block is never written to, only dropped from one table. Where a table ends inside a shared block
 * (after a truncation into a shared prefix), the next append asks for a copy of it first.
 *
 * Length: two calls for each change of a table, one that throws and one that does not.
 *
 * Order of execution: the data of a call must be executed before that of any later call, because a
 * freed block may be handed out again at once and its contents are needed until then.
 *
 * Invariants: a table's block has at least as many references as tables that hold it; the block
 * that the next token of a sequence goes to is held by that sequence alone, or will be copied
 * first; a block shared by two tables holds the same tokens for both.
 */
import { assertInvariant, checkInteger, fail } from '@vramkit/core';
import { failExhausted, type BlockPool } from './block-pool.js';
import { BlockTable, type BlockTableState, type BlockTableView } from './block-table.js';
import { gatherMoves, planCompaction, type TokenMoves } from './compaction.js';
import { grown, uintAt, MAX_INDEX, type IndexList } from './index-array.js';
import { checkSharing } from './sharing.js';
import { SlotMapping, type BlockCopy } from './slot-mapping.js';

/** Most tables of freed sequences that are kept for new ones. */
const MAX_SPARES = 1024;

/** What {@link KvSequences.fork} made. */
export interface SequenceFork {
  /** The new sequence. */
  readonly sequence: number;
  /** At most one copy: that of the partial block. */
  readonly copies: readonly BlockCopy[];
}

/** {@link KvSequences} as plain data. */
export interface KvSequencesState {
  readonly nextSequence: number;
  readonly tables: readonly (readonly [number, BlockTableState])[];
}

/**
 * Creates, grows, forks, cuts and frees sequences over a {@link BlockPool}.
 *
 * @example
 * ```ts
 * import { BlockPool, KvSequences } from '@vramkit/block-allocator';
 * const sequences = new KvSequences(new BlockPool({ blockCount: 64, blockSize: 16 }));
 * const prompt = sequences.create();
 * const { slots, positions } = sequences.append(prompt, 100);
 * const { sequence, copies } = sequences.fork(prompt);
 * console.log(slots.length, positions[99], sequence, copies);
 * sequences.free(prompt);
 * ```
 */
export class KvSequences {
  /** Where blocks come from. Other owners may use it too. */
  readonly pool: BlockPool;
  /** Tokens of a block. */
  readonly blockSize: number;
  readonly #tables = new Map<number, BlockTable>();
  /** Tables of sequences without their blocks. */
  readonly #parked = new Map<number, BlockTable>();
  /** Tables of freed sequences, for new ones. */
  readonly #spares: BlockTable[] = [];
  #nextSequence = 1;
  #scratch = new Uint32Array(16);

  /**
   * @param options `blockSize`: tokens of a block. Default: the pool's. Layers whose keys and
   *   values are smaller put more tokens into blocks of the same bytes.
   * @throws VramError `invalid-argument` where slots would exceed 2^31.
   */
  constructor(pool: BlockPool, options: { readonly blockSize?: number } = {}) {
    this.pool = pool;
    const most = Math.floor((MAX_INDEX + 1) / pool.blockCount);
    this.blockSize = checkInteger('blockSize', options.blockSize ?? pool.blockSize, 1, most);
  }

  /** How many sequences exist. */
  get sequenceCount(): number {
    return this.#tables.size + this.#parked.size;
  }

  /** A new sequence without tokens. Handles are never used again. */
  create(): number {
    return this.#add(this.#spares.pop() ?? new BlockTable({ blockSize: this.blockSize }));
  }

  /** Whether `sequence` exists. */
  has(sequence: number): boolean {
    return this.#tables.has(sequence);
  }

  /**
   * The block table of a sequence, live until the sequence is freed: it shows later changes.
   * @throws VramError `not-found` where there is no such sequence.
   */
  table(sequence: number): BlockTableView {
    return this.#table(sequence);
  }

  /**
   * Free blocks that {@link append} of `count` tokens would take, a copy included. Changes nothing.
   * @throws VramError `not-found`, `invalid-argument` as {@link tryAppend}.
   */
  blocksNeeded(sequence: number, count: number): number {
    return this.blocksNeededBy(this.#table(sequence), count);
  }

  /** {@link blocksNeeded} of a table that {@link KvSequences.table} gave. */
  blocksNeededBy(table: BlockTableView, count: number): number {
    checkInteger('count', count, 0, MAX_INDEX - table.tokenCount);
    return table.blocksFor(count) + (count > 0 && this.#endsInSharedBlock(table) ? 1 : 0);
  }

  /**
   * Adds `count` tokens at the next positions and says where they go. Allocates nothing on the heap
   * in steady state when `into` is handed in.
   * @param into Receives the tokens behind those it holds; a new one where left out.
   * @returns `into`, or `undefined` where the pool has too few free blocks.
   * @throws VramError `not-found` for an unknown sequence, `invalid-argument` where `count` is no
   *   count or positions would exceed 2^31 - 1.
   */
  tryAppend(
    sequence: number,
    count: number,
    into: SlotMapping = new SlotMapping(),
  ): SlotMapping | undefined {
    const table = this.#table(sequence);
    const needed = this.blocksNeededBy(table, count);
    if (needed > this.pool.freeCount) return undefined;
    this.appendTo(table, count, needed, into, 0);
    return into;
  }

  /**
   * Appends to a table that {@link KvSequences.table} gave, where the caller knows that blocks are
   * free.
   * @param needed What {@link blocksNeededBy} says of `count`.
   * @param unmapped Leading ones of the new tokens that `into` does not receive.
   */
  appendTo(
    view: BlockTableView,
    count: number,
    needed: number,
    into: SlotMapping,
    unmapped: number,
  ): void {
    // The views that this class gives are its tables.
    const table = view as BlockTable;
    const start = table.cachedTokenCount;
    table.reserve(count);
    into.reserve(count);
    if (needed > 0) this.#allocate(needed);
    let used = 0;
    if (needed > 0 && needed > table.blocksFor(count)) {
      const copy = this.#replaceLastBlock(table, uintAt(this.#scratch, 0));
      into.copies.push(copy);
      used = 1;
    }
    table.append(count, this.#scratch, used);
    into.push(table, start + unmapped, count - unmapped);
  }

  /**
   * {@link tryAppend}, for callers to whom exhaustion is an error.
   * @throws VramError `out-of-memory`, retryable, where the pool has too few free blocks; else as
   *   {@link tryAppend}.
   */
  append(sequence: number, count: number, into?: SlotMapping): SlotMapping {
    return (
      this.tryAppend(sequence, count, into) ??
      failExhausted(this.pool, this.blocksNeeded(sequence, count))
    );
  }

  /**
   * A new sequence with the tokens before position `tokenCount` (all by default). Full blocks are
   * shared; a partial last block needs one free block and comes back as a copy.
   * @returns `undefined` where that block is not to be had.
   * @throws VramError `not-found` for an unknown sequence, `invalid-argument` where the sequence
   *   has not seen that many tokens.
   */
  tryFork(sequence: number, tokenCount?: number): SequenceFork | undefined {
    const parent = this.#table(sequence);
    const end = checkInteger('tokenCount', tokenCount ?? parent.tokenCount, 0, parent.tokenCount);
    const partialTokens = parent.cachedTokensBefore(end) % this.blockSize;
    if (partialTokens > 0 && this.pool.freeCount === 0) return undefined;
    const table = parent.prefix(end);
    const shared = table.blockCount - (partialTokens > 0 ? 1 : 0);
    this.pool.retain(table.blocks, 0, shared);
    const copies: BlockCopy[] = [];
    if (partialTokens > 0) {
      this.#allocate(1);
      const to = uintAt(this.#scratch, 0);
      copies.push({ from: table.blockAt(shared), to, tokens: partialTokens });
      table.replaceBlock(shared, to);
    }
    return { sequence: this.#add(table), copies };
  }

  /**
   * {@link tryFork}, for callers to whom exhaustion is an error.
   * @throws VramError `out-of-memory`, retryable, where the pool has no free block for the partial
   *   one; else as {@link tryFork}.
   */
  fork(sequence: number, tokenCount?: number): SequenceFork {
    return this.tryFork(sequence, tokenCount) ?? failExhausted(this.pool, 1);
  }

  /**
   * Forgets every position from `tokenCount` on. Blocks without tokens are dropped; what other
   * sequences share with this one stays theirs.
   * @throws VramError `not-found` for an unknown sequence, `invalid-argument` where the sequence
   *   has not seen that many tokens.
   */
  truncate(sequence: number, tokenCount: number): void {
    const table = this.#table(sequence);
    checkInteger('tokenCount', tokenCount, 0, table.tokenCount);
    const kept = Math.ceil(table.cachedTokensBefore(tokenCount) / this.blockSize);
    this.pool.free(table.blocks, kept);
    table.truncate(tokenCount);
  }

  /**
   * Evicts `count` blocks of a sequence from `index` on: their tokens leave a hole, all others keep
   * their positions and order. Where one is shared, the others keep it.
   * @throws VramError `not-found` for an unknown sequence, `invalid-argument` where it has no such
   *   blocks.
   */
  dropBlocks(sequence: number, index: number, count: number): void {
    const table = this.#table(sequence);
    checkInteger('block index', index, 0, table.blockCount);
    checkInteger('count', count, 0, table.blockCount - index);
    this.pool.free(table.blocks, index, index + count);
    table.removeBlocks(index, count);
  }

  /** {@link dropBlocks} of one block. @throws VramError as {@link dropBlocks}. */
  dropBlock(sequence: number, index: number): void {
    this.dropBlocks(sequence, index, 1);
  }

  /**
   * Goes on with `count` full blocks that hold the next tokens already, `ids[start ..]`: blocks of
   * a known prefix. The sequence takes over a reference of each, which the caller has got.
   * @throws VramError `not-found` for an unknown sequence, `invalid-argument` where its last block
   *   is partial or `ids` is too short.
   */
  adopt(sequence: number, ids: IndexList, count: number, start = 0): void {
    const table = this.#table(sequence);
    checkInteger('freeSlotCount', table.freeSlotCount, 0, 0);
    table.append(count * this.blockSize, ids, start);
  }

  /**
   * Goes on at position `tokenCount` without the tokens before it; see {@link BlockTable.skip}.
   * @throws VramError `not-found`, `invalid-argument` as {@link BlockTable.skip}.
   */
  skip(sequence: number, tokenCount: number): void {
    this.#table(sequence).skip(tokenCount);
  }

  /**
   * Evicts all held tokens but `kept`, closing the gaps: blocks before the first evicted token
   * stay, the survivors behind it move to fresh blocks, and the old ones are dropped. Positions
   * stay.
   * @param kept Indices of held tokens, strictly ascending.
   * @returns The moves, or `undefined` where the pool has too few free blocks.
   * @throws VramError `not-found` for an unknown sequence, `invalid-argument` where `kept` is not
   *   strictly ascending or names a token that is not held.
   */
  tryCompact(sequence: number, kept: IndexList): TokenMoves | undefined {
    const table = this.#table(sequence);
    const { stays, needed } = planCompaction(kept, table);
    if (needed > this.pool.freeCount) return undefined;
    this.#allocate(needed);
    const moves = gatherMoves(table, kept, stays, this.#scratch);
    this.pool.free(table.blocks, stays);
    table.keep(kept, stays, this.#scratch);
    return moves;
  }

  /**
   * {@link tryCompact}, for callers to whom exhaustion is an error.
   * @throws VramError `out-of-memory`, retryable, where the pool has too few free blocks; else as
   *   {@link tryCompact}.
   */
  compact(sequence: number, kept: IndexList): TokenMoves {
    return (
      this.tryCompact(sequence, kept) ??
      failExhausted(this.pool, planCompaction(kept, this.#table(sequence)).needed)
    );
  }

  /**
   * Drops the blocks of a sequence and keeps its table: whoever copied the contents away can bring
   * them back. Until {@link tryUnpark} every other call but {@link free} finds no such sequence.
   * @throws VramError `not-found` for an unknown sequence.
   */
  park(sequence: number): void {
    const table = this.#table(sequence);
    this.pool.free(table.blocks);
    this.#tables.delete(sequence);
    this.#parked.set(sequence, table);
  }

  /**
   * Gives a parked sequence as many fresh blocks as it had, for its contents to be copied into.
   * @returns Its table, or `undefined` where the pool has too few free blocks.
   * @throws VramError `not-found` for a sequence that is not parked.
   */
  tryUnpark(sequence: number): BlockTableView | undefined {
    const table =
      this.#parked.get(sequence) ?? fail('not-found', `sequence ${sequence} is not parked`);
    if (table.blockCount > this.pool.freeCount) return undefined;
    this.#allocate(table.blockCount);
    for (let index = 0; index < table.blockCount; index++) {
      table.replaceBlock(index, uintAt(this.#scratch, index));
    }
    this.#parked.delete(sequence);
    this.#tables.set(sequence, table);
    return table;
  }

  /**
   * Ends a sequence and drops its blocks.
   * @throws VramError `not-found` for an unknown sequence, so also for one freed before.
   */
  free(sequence: number): void {
    const parked = this.#parked.get(sequence);
    const table = parked ?? this.#table(sequence);
    if (parked === undefined) this.pool.free(table.blocks);
    this.#tables.delete(sequence);
    this.#parked.delete(sequence);
    if (this.#spares.length === MAX_SPARES) return;
    table.clear();
    this.#spares.push(table);
  }

  /**
   * All tables as plain data, by handle.
   * @throws VramError `invalid-argument` where a sequence is parked: its contents are elsewhere.
   */
  save(): KvSequencesState {
    checkInteger('parked sequences', this.#parked.size, 0, 0);
    const tables = [...this.#tables].map(([sequence, table]) => [sequence, table.save()] as const);
    return { nextSequence: this.#nextSequence, tables };
  }

  /** Takes over the sequences of a state; the pool must hold their references. */
  restore({ nextSequence, tables }: KvSequencesState): void {
    checkInteger('sequences', this.#tables.size, 0, 0);
    this.#nextSequence = nextSequence;
    for (const [sequence, table] of tables) {
      this.#tables.set(sequence, BlockTable.restore(table, this.blockSize));
    }
  }

  /**
   * Verifies every invariant of this class, its tables and its pool. O(blocks + tokens).
   * @throws VramError `invariant` naming the first sequence or block that breaks one.
   */
  check(): void {
    this.pool.check();
    for (const table of this.#tables.values()) table.check();
    checkSharing(this.#tables.values(), this.pool);
  }

  #add(table: BlockTable): number {
    const sequence = this.#nextSequence++;
    this.#tables.set(sequence, table);
    return sequence;
  }

  #table(sequence: number): BlockTable {
    return (
      this.#tables.get(sequence) ??
      fail('not-found', `there is no sequence ${sequence}`, { sequence })
    );
  }

  #endsInSharedBlock(table: BlockTableView): boolean {
    return (
      table.freeSlotCount > 0 && this.pool.referenceCount(table.blockAt(table.blockCount - 1)) > 1
    );
  }

  /** Takes blocks that the caller knows to be free into the scratch array. */
  #allocate(count: number): void {
    this.#scratch = grown(this.#scratch, count);
    const ids = this.pool.tryAllocate(count, this.#scratch);
    assertInvariant(ids !== undefined, 'blocks were free a moment ago');
  }

  #replaceLastBlock(table: BlockTable, to: number): BlockCopy {
    const last = table.blockCount - 1;
    const from = table.blockAt(last);
    this.pool.free(table.blocks, last);
    table.replaceBlock(last, to);
    return { from, to, tokens: this.blockSize - table.freeSlotCount };
  }
}

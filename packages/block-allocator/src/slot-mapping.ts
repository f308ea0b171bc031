/**
 * Slot mappings: where a step writes its tokens, as the arrays that kernels read.
 *
 * A step appends to any number of sequences. For each new token a kernel needs the slot to write K
 * and V to (block id x blockSize + offset) and the position to rotate by; both are collected here,
 * sequence after sequence, in arrays that are filled again each step. Reading goes by block tables:
 * {@link writeBlockTable} writes one row of the matrix that attention kernels index.
 *
 * Copies come first: `copies` holds the blocks whose contents must be copied before the step
 * writes. They must take effect in order, because a block can be the target of one copy after it
 * was the source of another.
 */
import { checkInteger, fail } from '@vramkit/core';
import { NULL_BLOCK } from './block-pool.js';
import type { BlockTableView } from './block-table.js';
import { grown, type IndexArray } from './index-array.js';

/** One copy of the first tokens of a block into another; plain data for whoever owns the bytes. */
export interface BlockCopy {
  /** Block to read. */
  readonly from: number;
  /** Block to write. */
  readonly to: number;
  /** Leading tokens to copy; the rest of the block is not in use. */
  readonly tokens: number;
}

/** The new tokens of a step: slot and position of each, and the copies that come first. */
export class SlotMapping {
  /** Copies to execute, in order, before the tokens are written. */
  readonly copies: BlockCopy[] = [];
  #slots = new Uint32Array(16);
  #positions = new Uint32Array(16);
  #length = 0;

  /** How many tokens are mapped. */
  get length(): number {
    return this.#length;
  }

  /** Slot of each token, `[tokens]`: a view that the next change invalidates. */
  get slots(): Uint32Array {
    return this.#slots.subarray(0, this.#length);
  }

  /** Position of each token, `[tokens]`: a view that the next change invalidates. */
  get positions(): Uint32Array {
    return this.#positions.subarray(0, this.#length);
  }

  /** Makes room for `count` more tokens. */
  reserve(count: number): void {
    this.#slots = grown(this.#slots, this.#length + count);
    this.#positions = grown(this.#positions, this.#length + count);
  }

  /**
   * Adds the held tokens `[start, start + count)` of `table`.
   * @throws VramError `invalid-argument` where the table does not hold them.
   */
  push(table: BlockTableView, start: number, count: number): void {
    this.reserve(count);
    table.copySlots(start, count, this.#slots, this.#length);
    table.copyPositions(start, count, this.#positions, this.#length);
    this.#length += count;
  }

  /** Whether tokens are mapped to block `id`. O(tokens). */
  writesTo(id: number, blockSize: number): boolean {
    return this.slots.some((slot) => Math.floor(slot / blockSize) === id);
  }

  /** Forgets all tokens and copies, and keeps the memory. */
  clear(): void {
    this.copies.length = 0;
    this.#length = 0;
  }
}

/**
 * Writes the slots of the held tokens `[start, start + count)` to `out[offset ..]`.
 * @returns How many were written: `count`.
 * @throws VramError `invalid-argument` where the table does not hold them or `out` has no room.
 */
export function writeSlots(
  table: BlockTableView,
  start: number,
  count: number,
  out: IndexArray,
  offset = 0,
): number {
  checkRoom(out, offset, count);
  table.copySlots(start, count, out, offset);
  return count;
}

/**
 * Writes the block ids of `table` to `out[offset ..]` and fills up to `width` entries with the null
 * block: one row of a `[sequences, width]` matrix.
 * @returns How many of the entries name a block.
 * @throws VramError `invalid-argument` where the table is wider than `width` or `out` has no room.
 */
export function writeBlockTable(
  table: BlockTableView,
  out: IndexArray,
  offset = 0,
  width = table.blockCount,
): number {
  checkInteger('width', width, table.blockCount);
  checkRoom(out, offset, width);
  for (let index = 0; index < width; index++) {
    out[offset + index] = index < table.blockCount ? table.blockAt(index) : NULL_BLOCK;
  }
  return table.blockCount;
}

function checkRoom(out: IndexArray, offset: number, count: number): void {
  if (!Number.isSafeInteger(offset) || offset < 0 || offset + count > out.length) {
    fail('invalid-argument', `${count} entries at ${offset} do not fit ${out.length}`, {
      count,
      offset,
      capacity: out.length,
    });
  }
}

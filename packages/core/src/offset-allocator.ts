/**
 * A range allocator over `[0, size)`: every operation takes constant time, and no GPU is involved.
 *
 * Mental model: the ranges, free and used, lie side by side and are linked in address order. Free
 * ones are also linked in bins by size. A bin holds the sizes that share their six leading bits
 * (below 64 each size has its own), and two levels of bitmaps say which bins are filled, so the
 * smallest filled bin that surely fits is found with two bit scans.
 *
 *     ranges   [used 3][free 5][used 9][free 200 ............]
 *     bins              5              [200, 203]
 *
 * A request goes to the first bin whose smallest member fits. Only where there is none, the bin
 * that the request itself would be filed under is searched for a fitting member, at most {@link
 * SCAN_LIMIT} of them: this grants a request for exactly what is left. The front of the range is
 * used and the rest goes back; freeing merges with both neighbours, so no two free ranges touch.
 *
 * Invariants ({@link OffsetAllocator.check}): ranges tile `[0, size)`; no two free neighbours; each
 * free range is in the bin of its size; a bitmap bit is set exactly where its bin is filled.
 *
 * What the heuristic gets wrong: good fit is not best fit, and nothing is ever moved, so a request
 * can fail although the free total would hold it. Sources: TLSF (Masmano et al., 2004) and the
 * floating-point bins of Sebastian Aaltonen's offset allocator (2023); unlike those, a failing
 * search looks once into the bin below. Units are the caller's: bytes, slots, 256-byte lines.
 */
import { assertArgument, assertInvariant, checkInteger, fail } from './assert.js';

/** Fields of a range record; eight words each, so that one record is half a cache line. */
const OFFSET = 0;
const SIZE = 1;
const STATE = 2;
const BELOW = 3;
const ABOVE = 4;
const PREVIOUS = 5;
const NEXT = 6;
const STRIDE = 8;

const SPARE = 0;
const FREE = 1;
const USED = 2;
const NONE = -1;

const SUB_BITS = 5;
const SUB_COUNT = 1 << SUB_BITS;
/** Bins of the largest size: 26 shifts of its five bits, and the sizes below 32. */
const LEVEL_COUNT = 31 - SUB_BITS + 1;
const MAX_SIZE = 0x7fff_ffff;

/** Members of the request's own bin that are looked at before the request fails. */
const SCAN_LIMIT = 32;

/** Identifies a used range; valid until it is freed, then reused. */
export type RangeHandle = number;

/** Options of {@link OffsetAllocator}. */
export interface OffsetAllocatorOptions {
  /** Length of the whole range, in the caller's unit; in [1, 2^31 - 1]. */
  readonly size: number;
}

/** Bin of a free range: its leading six bits, and how far they are shifted. */
function binOf(size: number): number {
  const shift = 31 - SUB_BITS - Math.clz32(size);
  return shift <= 0 ? size : shift * SUB_COUNT + (size >>> shift);
}

/** First bin of which every member holds `size`; one past the last where there is none. */
function binThatFits(size: number): number {
  const shift = 31 - SUB_BITS - Math.clz32(size);
  return shift <= 0 ? size : binOf(size + (1 << shift) - 1);
}

/** Index of the lowest set bit of a non-zero word. */
function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word);
}

/** Gives out and takes back ranges; see the notes of this module. */
export class OffsetAllocator {
  /** Length of the whole range. */
  readonly size: number;
  #records = new Int32Array(64 * STRIDE);
  #recordCount = 0;
  #spareHead = NONE;
  #freeSize = 0;
  #freeExtentCount = 0;
  #usedCount = 0;
  #filledLevels = 0;
  readonly #filledBins = new Int32Array(LEVEL_COUNT);
  readonly #binHeads = new Int32Array(LEVEL_COUNT * SUB_COUNT).fill(NONE);

  constructor(options: OffsetAllocatorOptions) {
    this.size = checkInteger('size', options.size, 1, MAX_SIZE);
    const whole = this.#newRecord();
    this.#write(whole, 0, this.size, NONE, NONE);
    this.#insertFree(whole);
  }

  /** Sum of the free ranges. */
  get freeSize(): number {
    return this.#freeSize;
  }

  /** Free ranges; 1 where nothing is used. */
  get freeExtentCount(): number {
    return this.#freeExtentCount;
  }

  /** Used ranges. */
  get usedCount(): number {
    return this.#usedCount;
  }

  /**
   * Takes a range of `size`, or gives `undefined` where no free range is found.
   * @throws VramError `invalid-argument` where `size` is not an integer >= 1.
   */
  tryAllocate(size: number): RangeHandle | undefined {
    assertArgument(Number.isInteger(size) && size >= 1, 'a range needs an integer size >= 1');
    if (size > this.#freeSize) return undefined;
    const found = this.#findFree(size);
    if (found === NONE) return undefined;
    this.#removeFree(found);
    const rest = this.#get(found, SIZE) - size;
    if (rest > 0) {
      // May move the records, so no reference to them is held across this call.
      const above = this.#newRecord();
      const beyond = this.#get(found, ABOVE);
      this.#write(above, this.#get(found, OFFSET) + size, rest, found, beyond);
      if (beyond !== NONE) this.#set(beyond, BELOW, above);
      this.#set(found, ABOVE, above);
      this.#set(found, SIZE, size);
      this.#insertFree(above);
    }
    this.#set(found, STATE, USED);
    this.#usedCount += 1;
    return found;
  }

  /**
   * Gives a range back; its free neighbours merge with it.
   * @throws VramError `invalid-argument` where the handle is not of a used range.
   */
  free(handle: RangeHandle): void {
    this.#assertUsed(handle);
    this.#usedCount -= 1;
    let merged = handle;
    const below = this.#get(handle, BELOW);
    if (below !== NONE && this.#get(below, STATE) === FREE) {
      this.#removeFree(below);
      this.#absorbAbove(below);
      merged = below;
    }
    const above = this.#get(merged, ABOVE);
    if (above !== NONE && this.#get(above, STATE) === FREE) {
      this.#removeFree(above);
      this.#absorbAbove(merged);
    }
    this.#insertFree(merged);
  }

  /** Start of a used range. @throws VramError `invalid-argument` for any other handle. */
  offsetOf(handle: RangeHandle): number {
    this.#assertUsed(handle);
    return this.#get(handle, OFFSET);
  }

  /** Length of a used range. @throws VramError `invalid-argument` for any other handle. */
  sizeOf(handle: RangeHandle): number {
    this.#assertUsed(handle);
    return this.#get(handle, SIZE);
  }

  /** Length of the longest free range; walks the fullest bin. */
  largestFreeSize(): number {
    if (this.#filledLevels === 0) return 0;
    const level = 31 - Math.clz32(this.#filledLevels);
    const sub = 31 - Math.clz32(at(this.#filledBins, level));
    let largest = 0;
    let record = at(this.#binHeads, level * SUB_COUNT + sub);
    for (; record !== NONE; record = this.#get(record, NEXT)) {
      largest = Math.max(largest, this.#get(record, SIZE));
    }
    return largest;
  }

  /**
   * Verifies every invariant; linear.
   * @throws VramError `invariant` naming the first that fails.
   */
  check(): void {
    const { freeCount, usedCount, freeSize } = this.#checkTiling();
    assertInvariant(freeCount === this.#freeExtentCount, 'count of free ranges');
    assertInvariant(usedCount === this.#usedCount, 'count of used ranges');
    assertInvariant(freeSize === this.#freeSize, 'sum of free ranges');
    assertInvariant(this.#checkBins() === freeCount, 'each free range is in one bin');
    let spare = 0;
    for (let record = this.#spareHead; record !== NONE; record = this.#get(record, NEXT)) {
      assertInvariant(this.#get(record, STATE) === SPARE, 'a spare record is in use');
      spare += 1;
      assertInvariant(spare <= this.#recordCount, 'the spare list has a cycle');
    }
    assertInvariant(spare + freeCount + usedCount === this.#recordCount, 'a record is lost');
  }

  /** Walks the ranges in address order; record 0 always is the lowest, because it only grows up. */
  #checkTiling(): { freeCount: number; usedCount: number; freeSize: number } {
    let [freeCount, usedCount, freeSize, end, below] = [0, 0, 0, 0, NONE];
    let belowIsFree = false;
    for (let record = 0; record !== NONE; record = this.#get(record, ABOVE)) {
      assertInvariant(freeCount + usedCount < this.#recordCount, 'the ranges have a cycle');
      const isFree = this.#get(record, STATE) === FREE;
      assertInvariant(isFree || this.#get(record, STATE) === USED, 'a spare record has a place');
      assertInvariant(this.#get(record, OFFSET) === end, 'a gap or an overlap');
      assertInvariant(this.#get(record, SIZE) >= 1, 'an empty range');
      assertInvariant(this.#get(record, BELOW) === below, 'a broken link to the range below');
      assertInvariant(!(isFree && belowIsFree), 'two free neighbours');
      end += this.#get(record, SIZE);
      if (isFree) freeCount += 1;
      else usedCount += 1;
      if (isFree) freeSize += this.#get(record, SIZE);
      below = record;
      belowIsFree = isFree;
    }
    assertInvariant(end === this.size, 'the ranges do not cover the whole');
    return { freeCount, usedCount, freeSize };
  }

  /** Walks the bins. @returns How many ranges they hold. */
  #checkBins(): number {
    let count = 0;
    this.#binHeads.forEach((head, bin) => {
      const level = bin >>> SUB_BITS;
      const bit = (at(this.#filledBins, level) >>> (bin & (SUB_COUNT - 1))) & 1;
      assertInvariant(bit === (head === NONE ? 0 : 1), `the bit of bin ${bin}`);
      let previous = NONE;
      for (let record = head; record !== NONE; record = this.#get(record, NEXT)) {
        assertInvariant(this.#get(record, STATE) === FREE, `a used range in bin ${bin}`);
        assertInvariant(binOf(this.#get(record, SIZE)) === bin, `a wrong size in bin ${bin}`);
        assertInvariant(this.#get(record, PREVIOUS) === previous, `a broken link in bin ${bin}`);
        previous = record;
        count += 1;
        assertInvariant(count <= this.#recordCount, 'a bin has a cycle');
      }
    });
    this.#filledBins.forEach((bits, level) => {
      const bit = (this.#filledLevels >>> level) & 1;
      assertInvariant(bit === (bits === 0 ? 0 : 1), `the bit of level ${level}`);
    });
    return count;
  }

  /** A free range that holds `size`, or {@link NONE}. */
  #findFree(size: number): number {
    const bin = binThatFits(size);
    const level = bin >>> SUB_BITS;
    if (level < LEVEL_COUNT) {
      const here = at(this.#filledBins, level) & (-1 << (bin & (SUB_COUNT - 1)));
      if (here !== 0) return at(this.#binHeads, level * SUB_COUNT + lowestBit(here));
      const higherLevels = this.#filledLevels & (-2 << level);
      if (higherLevels !== 0) {
        const higher = lowestBit(higherLevels);
        return at(this.#binHeads, higher * SUB_COUNT + lowestBit(at(this.#filledBins, higher)));
      }
    }
    let record = at(this.#binHeads, binOf(size));
    for (let scanned = 0; record !== NONE && scanned < SCAN_LIMIT; scanned += 1) {
      if (this.#get(record, SIZE) >= size) return record;
      record = this.#get(record, NEXT);
    }
    return NONE;
  }

  #insertFree(record: number): void {
    const size = this.#get(record, SIZE);
    const bin = binOf(size);
    const head = at(this.#binHeads, bin);
    this.#set(record, STATE, FREE);
    this.#set(record, PREVIOUS, NONE);
    this.#set(record, NEXT, head);
    if (head !== NONE) this.#set(head, PREVIOUS, record);
    this.#binHeads[bin] = record;
    const level = bin >>> SUB_BITS;
    this.#filledBins[level] = at(this.#filledBins, level) | (1 << (bin & (SUB_COUNT - 1)));
    this.#filledLevels |= 1 << level;
    this.#freeSize += size;
    this.#freeExtentCount += 1;
  }

  #removeFree(record: number): void {
    const previous = this.#get(record, PREVIOUS);
    const next = this.#get(record, NEXT);
    const size = this.#get(record, SIZE);
    if (next !== NONE) this.#set(next, PREVIOUS, previous);
    if (previous !== NONE) this.#set(previous, NEXT, next);
    else {
      const bin = binOf(size);
      this.#binHeads[bin] = next;
      if (next === NONE) this.#markEmpty(bin);
    }
    this.#freeSize -= size;
    this.#freeExtentCount -= 1;
  }

  #markEmpty(bin: number): void {
    const level = bin >>> SUB_BITS;
    const bits = at(this.#filledBins, level) & ~(1 << (bin & (SUB_COUNT - 1)));
    this.#filledBins[level] = bits;
    if (bits === 0) this.#filledLevels &= ~(1 << level);
  }

  /** Extends a range over the one above it, whose record becomes spare. */
  #absorbAbove(record: number): void {
    const above = this.#get(record, ABOVE);
    const beyond = this.#get(above, ABOVE);
    this.#set(record, SIZE, this.#get(record, SIZE) + this.#get(above, SIZE));
    this.#set(record, ABOVE, beyond);
    if (beyond !== NONE) this.#set(beyond, BELOW, record);
    this.#set(above, STATE, SPARE);
    this.#set(above, NEXT, this.#spareHead);
    this.#spareHead = above;
  }

  #newRecord(): number {
    const spare = this.#spareHead;
    if (spare !== NONE) {
      this.#spareHead = this.#get(spare, NEXT);
      return spare;
    }
    const record = this.#recordCount;
    if ((record + 1) * STRIDE > this.#records.length) {
      const grown = new Int32Array(this.#records.length * 2);
      grown.set(this.#records);
      this.#records = grown;
    }
    this.#recordCount += 1;
    return record;
  }

  #write(record: number, offset: number, size: number, below: number, above: number): void {
    this.#set(record, OFFSET, offset);
    this.#set(record, SIZE, size);
    this.#set(record, BELOW, below);
    this.#set(record, ABOVE, above);
  }

  #assertUsed(handle: RangeHandle): void {
    const known = Number.isInteger(handle) && handle >= 0 && handle < this.#recordCount;
    if (!known || this.#get(handle, STATE) !== USED) {
      fail('invalid-argument', `range ${handle} is not in use`, { handle: String(handle) });
    }
  }

  #get(record: number, field: number): number {
    return at(this.#records, record * STRIDE + field);
  }

  #set(record: number, field: number, value: number): void {
    this.#records[record * STRIDE + field] = value;
  }
}

/** An element; the caller keeps the index in range. */
function at(array: Int32Array, index: number): number {
  // A typed array reads as possibly undefined to the compiler; check() proves the links in range.
  return array[index] as number;
}

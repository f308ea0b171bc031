/**
 * A range allocator over `[0, size)`: every operation takes constant time, and no GPU is involved.
 *
 * Mental model: the ranges, free and used, lie side by side and are linked in address order. Free
 * ones are also linked in bins by size. A bin holds sizes that share their five leading bits after
 * the first (below 32 each size has its own), and two levels of bitmaps say which bins are filled, so
 * the smallest filled bin that surely fits is found with two bit scans.
 *
 *     ranges   [used 3][free 5][used 9][free 40 ...          ]
 *     bins              5 -> .          32..63 step 1 -> ...
 *
 * A request goes to the first bin whose smallest member fits. Only where there is none, the bin that
 * the request itself would be filed under is searched for a fitting member, at most
 * {@link SCAN_LIMIT} of them: this grants a request for exactly what is left. The front of the range is
 * used and the rest goes back; freeing merges with both neighbours, so no two free ranges touch.
 *
 * Invariants ({@link OffsetAllocator.check}): ranges tile `[0, size)`; no two free neighbours; each
 * free range is in the bin of its size; a bitmap bit is set exactly where its bin is filled.
 *
 * What the heuristic gets wrong: good fit is not best fit, and nothing is ever moved, so a request can
 * fail although the free total would hold it. Sources: TLSF (Masmano et al., 2004) and the
 * floating-point bins of Sebastian Aaltonen's offset allocator (2023); unlike those, a
 * failing search looks once into the bin below. Units are the caller's: bytes, slots, 256-byte lines.
 */
import { assertArgument, assertInvariant, checkInteger } from './assert.js';

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

/** Bin of a free range: its five bits after the leading one, and how far they are shifted. */
function binOf(size: number): number {
  const shift = 31 - SUB_BITS - Math.clz32(size);
  return shift <= 0 ? size : shift * SUB_COUNT + (size >>> shift);
}

/** First bin whose smallest member holds `size`. */
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
  readonly #size: number;
  #records: Int32Array;
  #spareHead = NONE;
  #freeSize: number;
  #rangeCount = 1;
  #freeCount = 0;
  readonly #binHeads = new Int32Array(LEVEL_COUNT * SUB_COUNT + SUB_COUNT).fill(NONE);
}

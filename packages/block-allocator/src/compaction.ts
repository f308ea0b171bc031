/**
 * Compaction: a table that keeps some of its tokens and closes the gaps, as moves between slots.
 *
 * Blocks before the first evicted token stay where they are, and stay shared. Survivors behind it
 * go to fresh blocks, never to the old ones: those may be shared, and a kernel that moves many
 * tokens at once must not read what it writes. Moving within the old blocks would need no fresh
 * ones, and was rejected for both reasons.
 *
 * ```
 *   blockSize 4, kept 0 1 2 3 5 9 10:
 *   [0 1 2 3][4 5 6 7][8 9 10]  ->  [0 1 2 3][5 9 10]     first block stays, one fresh block
 * ```
 */
import { fail } from '@vramkit/core';
import type { BlockTableView } from './block-table.js';
import { at, type IndexList } from './index-array.js';

/** Tokens to move, slot to slot: `to[i]` receives what `from[i]` holds. No slot is in both. */
export interface TokenMoves {
  /** Slots to read, `[moves]`. */
  readonly from: Uint32Array;
  /** Slots to write, `[moves]`. */
  readonly to: Uint32Array;
}

/**
 * How many leading blocks stay, and how many fresh ones the other survivors need.
 * @param kept Indices of held tokens, strictly ascending.
 * @throws VramError `invalid-argument` where `kept` does not ascend or names a token not held.
 */
export function planCompaction(
  kept: IndexList,
  table: BlockTableView,
): { stays: number; needed: number } {
  let previous = -1;
  let inPlace = 0;
  for (let index = 0; index < kept.length; index++) {
    const token = at(kept, index);
    if (!Number.isSafeInteger(token) || token <= previous || token >= table.cachedTokenCount) {
      fail(
        'invalid-argument',
        `kept[${index}] = ${token} must be above ${previous} and below ${table.cachedTokenCount}`,
        { index, token: String(token), previous, cachedTokenCount: table.cachedTokenCount },
      );
    }
    // Indices ascend, so a token at its own index has all tokens before it there as well.
    if (token === index) inPlace = index + 1;
    previous = token;
  }
  // A run of survivors that is all of `kept` stays even in its last, then partial, block.
  const blocks = inPlace / table.blockSize;
  const stays = inPlace === kept.length ? Math.ceil(blocks) : Math.floor(blocks);
  return { stays, needed: Math.ceil(kept.length / table.blockSize) - stays };
}

/** The moves of all survivors behind the first `stays` blocks to the fresh blocks `ids`. */
export function gatherMoves(
  table: BlockTableView,
  kept: IndexList,
  stays: number,
  ids: IndexList,
): TokenMoves {
  const { blockSize } = table;
  const first = Math.min(kept.length, stays * blockSize);
  const from = new Uint32Array(kept.length - first);
  const to = new Uint32Array(kept.length - first);
  for (let index = 0; index < from.length; index++) {
    from[index] = table.slotAt(at(kept, first + index));
    const offset = index % blockSize;
    to[index] = at(ids, (index - offset) / blockSize) * blockSize + offset;
  }
  return { from, to };
}

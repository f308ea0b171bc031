/**
 * Groups of layers that see the same tokens, and so share block tables.
 *
 * A full group sees all tokens. A window group sees the last `windowTokens`, the token itself
 * included, and the first `sinkTokens`. A chunked group sees its own chunk. What no later token
 * will see can be released, and a prefix can be hit where what is still to be seen is there:
 *
 * ```
 *   needed of 5 blocks of 4 tokens, to go on at token 20
 *   full                      # # # # #
 *   window 6                  . . . # #       tokens 15..19 are seen by token 20
 *   window 6, sink 2          # . . # #
 *   chunked 8                 . . . . #       token 20 is in chunk [16, 24)
 * ```
 */
import { assertArgument, checkInteger } from '@vramkit/core';
import type { BlockTableView } from './block-table.js';
import { MAX_INDEX } from './index-array.js';

/** A group of layers. */
export type KvGroup = (
  | {
      /** Every token sees all before it. */
      readonly kind: 'full';
    }
  | {
      /** A token sees the `windowTokens` up to itself, and the first `sinkTokens`. */
      readonly kind: 'window';
      readonly windowTokens: number;
      /** Default: 0. */
      readonly sinkTokens?: number;
    }
  | {
      /** A token sees those before it in its chunk of `chunkTokens`. */
      readonly kind: 'chunked';
      readonly chunkTokens: number;
    }
) & {
  /** Tokens of a block of this group: a multiple of the cache's. Default: the cache's. */
  readonly blockSize?: number;
};

/** The rule of one group, in numbers. */
export interface GroupRule {
  readonly blockSize: number;
  /** Blocks of the cache in one of this group. */
  readonly scale: number;
  /** Leading blocks of the group that are never released. */
  readonly sinkBlocks: number;
  /** Whether something is released at all. */
  readonly isWindowed: boolean;
  /** The first token, sinks apart, that the token at `position` sees. */
  firstVisible(position: number): number;
}

/**
 * @throws VramError `invalid-argument` where a size is out of range, a sink is not smaller than its
 *   window, or a block size is no multiple of `baseBlockSize`.
 */
export function groupRule(group: KvGroup, baseBlockSize: number): GroupRule {
  const blockSize = checkInteger('blockSize', group.blockSize ?? baseBlockSize, 1, MAX_INDEX);
  const scale = blockSize / baseBlockSize;
  assertArgument(
    Number.isInteger(scale),
    `a group's blocks of ${blockSize} tokens are no multiple of ${baseBlockSize}`,
    { blockSize, baseBlockSize },
  );
  const sizes = { blockSize, scale };
  if (group.kind === 'full') {
    return { ...sizes, sinkBlocks: 0, isWindowed: false, firstVisible: () => 0 };
  }
  if (group.kind === 'chunked') {
    const chunk = checkInteger('chunkTokens', group.chunkTokens, 1, MAX_INDEX);
    const firstVisible = (position: number): number => position - (position % chunk);
    return { ...sizes, sinkBlocks: 0, isWindowed: true, firstVisible };
  }
  const window = checkInteger('windowTokens', group.windowTokens, 1, MAX_INDEX);
  const sink = checkInteger('sinkTokens', group.sinkTokens ?? 0, 0, window - 1);
  return {
    ...sizes,
    sinkBlocks: Math.ceil(sink / blockSize),
    isWindowed: true,
    firstVisible: (position) => Math.max(0, position - window + 1),
  };
}

/** Blocks behind the sinks that no token from `tokenCount` on will see. O(log blocks). */
export function releasableBlocks(rule: GroupRule, table: BlockTableView): number {
  if (!rule.isWindowed) return 0;
  const unseen = table.cachedTokensBefore(rule.firstVisible(table.tokenCount));
  return Math.max(0, Math.floor(unseen / rule.blockSize) - rule.sinkBlocks);
}

/**
 * Whether a table holds what the token at `position` sees, so that the sequence could go on there.
 * Sinks are never released; a group that sees all is not asked, because its holes are wanted.
 */
export function canGoOnAt(rule: GroupRule, table: BlockTableView, position: number): boolean {
  if (!rule.isWindowed) return true;
  const first = rule.firstVisible(position);
  const held = table.cachedTokensBefore(position) - table.cachedTokensBefore(first);
  return held === position - first;
}

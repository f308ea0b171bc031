/**
 * Protection in tokens, rounded outward to whole blocks.
 *
 * ```
 *   blockSize 4, firstTokens 3, lastTokens 4, 18 held:
 *   [P P P P][. . . .][. . . .][P P P P][P P]      evictable 4 .. 11
 * ```
 */
import type { KvProtection } from './policy.js';

/**
 * A range of held tokens; both ends are multiples of the block size, except an end at the last
 * token.
 */
export interface TokenRange {
  /** First token. */
  readonly start: number;
  /** Behind the last token; never below `start`. */
  readonly end: number;
}

/** Which of `tokenCount` held tokens may be evicted. */
export function evictableTokens(
  protect: KvProtection,
  tokenCount: number,
  blockSize: number,
): TokenRange {
  const first = Math.ceil(protect.firstTokens / blockSize) * blockSize;
  const start = Math.min(tokenCount, first);
  const last = Math.floor((tokenCount - protect.lastTokens) / blockSize) * blockSize;
  return { start, end: Math.max(start, protect.lastTokens === 0 ? tokenCount : last) };
}

/** Whole blocks that a protection covers where the last block is full. */
export function protectedBlocks(protect: KvProtection, blockSize: number): number {
  return Math.ceil(protect.firstTokens / blockSize) + Math.ceil(protect.lastTokens / blockSize);
}

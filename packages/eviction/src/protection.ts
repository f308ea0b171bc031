/**
 * Protection: ends rounded outward to whole blocks, and ranges of positions in between.
 *
 * ```
 *   blockSize 4, firstTokens 3, lastTokens 4, 18 held:
 *   [P P P P][. . . .][. . . .][P P P P][P P]      evictable 4 .. 11
 * ```
 */
import type { KvPolicy, KvProtection } from './policy.js';

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

/** Which of `tokenCount` held tokens the protected ends leave to evict. */
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

/**
 * Held tokens that may be evicted at prefill, ascending; for a policy of whole blocks without those
 * of a partial last one.
 */
export function evictableIndices(
  { protect, blockSize, granularity }: Pick<KvPolicy, 'protect' | 'blockSize' | 'granularity'>,
  positions: ArrayLike<number>,
): number[] {
  const { start, end } = evictableTokens(protect, positions.length, blockSize);
  const isWhole = granularity.prefill === 'block';
  const limit = isWhole ? Math.floor(end / blockSize) * blockSize : end;
  const indices: number[] = [];
  const step = isWhole ? blockSize : 1;
  for (let index = start; index < limit; index += step) {
    if (holdsProtected(protect, positions, index, index + step)) continue;
    for (let token = index; token < index + step; token++) indices.push(token);
  }
  return indices;
}

/** Full blocks that may be evicted at decode, ascending. */
export function evictableBlocks(
  { protect, blockSize }: Pick<KvPolicy, 'protect' | 'blockSize'>,
  positions: ArrayLike<number>,
): number[] {
  const { start, end } = evictableTokens(protect, positions.length, blockSize);
  const blocks: number[] = [];
  for (let token = start; token + blockSize <= end; token += blockSize) {
    if (!holdsProtected(protect, positions, token, token + blockSize)) {
      blocks.push(token / blockSize);
    }
  }
  return blocks;
}

/** Most full blocks that a protection covers, however eviction has moved its tokens. */
export function protectedBlocks(protect: KvProtection, blockSize: number): number {
  let blocks =
    Math.ceil(protect.firstTokens / blockSize) + Math.ceil(protect.lastTokens / blockSize);
  for (const { start, end } of protect.ranges ?? []) {
    if (end > start) blocks += Math.ceil((end - start - 1) / blockSize) + 1;
  }
  return blocks;
}

/** Whether a held token in `[from, to)` stands at a position of a protected range. */
function holdsProtected(
  { ranges = [] }: KvProtection,
  positions: ArrayLike<number>,
  from: number,
  to: number,
): boolean {
  if (ranges.length === 0) return false;
  for (let token = from; token < to; token++) {
    const position = positions[token] ?? NaN;
    if (ranges.some(({ start, end }) => position >= start && position < end)) return true;
  }
  return false;
}

/**
 * Triggers: when a decode step has to evict.
 */
import type { KvProgress } from './needs.js';

/**
 * Each time an append has filled a block and the sequence holds more than its budget: once it is
 * down to it, one eviction at most per `blockSize` tokens, and the number held swings between the
 * budget and one block above it.
 */
export function whenBlockFills(progress: KvProgress, budgetTokens: number): boolean {
  return progress.blockFilled && progress.cachedTokenCount > budgetTokens;
}

/**
 * Triggers: when a decode step has to evict.
 */
import type { KvBlocks } from './policy.js';

/**
 * Each time an append has filled a block and the sequence holds more than its budget: one eviction
 * at most per `blockSize` tokens, and the number held swings between the budget and one block above
 * it.
 */
export function whenBlockFills(blocks: KvBlocks, budgetTokens: number): boolean {
  return blocks.blockFilled && blocks.cachedTokenCount > budgetTokens;
}

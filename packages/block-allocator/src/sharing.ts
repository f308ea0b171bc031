/**
 * What must hold between tables that share blocks of one pool.
 *
 * Sharing begins with a fork, so a shared block holds the same tokens, at the same offsets, for
 * every table that has it; a table may end earlier in it than another. A block that two tables fill
 * differently has been written to while it was shared, and is corrupt for one of them.
 */
import { assertInvariant } from '@vramkit/core';
import type { BlockPool } from './block-pool.js';
import type { BlockTableView } from './block-table.js';

/**
 * Verifies that shared blocks hold the same tokens for all, and that each block has a reference for
 * every table that holds it; other owners may hold more. O(blocks + tokens), for tests and
 * debugging.
 * @throws VramError `invariant` naming the first block that breaks a rule.
 */
export function checkSharing(tables: Iterable<BlockTableView>, pool: BlockPool): void {
  const holders = new Map<number, number>();
  const positionAtSlot = new Map<number, number>();
  for (const table of tables) {
    for (const id of table.blocks) holders.set(id, (holders.get(id) ?? 0) + 1);
    for (let index = 0; index < table.cachedTokenCount; index++) {
      const slot = table.slotAt(index);
      const position = table.positionAt(index);
      const other = positionAtSlot.get(slot) ?? position;
      assertInvariant(other === position, `slot ${slot} holds positions ${other} and ${position}`, {
        slot,
        other,
        position,
      });
      positionAtSlot.set(slot, position);
    }
  }
  for (const [id, tableCount] of holders) {
    const references = pool.referenceCount(id);
    assertInvariant(
      references >= tableCount,
      `block ${id} is in ${tableCount} tables and has ${references} references`,
      { id, tableCount, references },
    );
  }
}

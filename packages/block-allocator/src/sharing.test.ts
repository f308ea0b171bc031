/** What must hold between tables that share blocks. */
import { describe, expect, it } from 'vitest';
import { BlockPool } from './block-pool.js';
import { BlockTable } from './block-table.js';
import { checkSharing } from './sharing.js';

describe('checkSharing', () => {
  const pool = new BlockPool({ blockCount: 8, blockSize: 4 });
  const ids = pool.allocate(3);
  pool.retain(ids);
  const table = new BlockTable({ blockSize: 4 });
  table.append(10, ids);

  it('accepts tables that end at different places of the same blocks', () => {
    expect(() => checkSharing([table, table.prefix(7)], pool)).not.toThrow();
  });

  it('finds a block that two tables fill differently', () => {
    const other = table.prefix(8);
    other.removeBlocks(1, 1);
    other.append(2, [ids[1] ?? 0]);
    expect(() => checkSharing([table, other], pool)).toThrow(
      expect.objectContaining({ code: 'invariant', context: { slot: 8, other: 4, position: 8 } }),
    );
  });

  it('finds a block that more tables hold than it has references', () => {
    expect(() => checkSharing([table, table.prefix(10), table.prefix(4)], pool)).toThrow(
      expect.objectContaining({
        code: 'invariant',
        context: { id: 1, tableCount: 3, references: 2 },
      }),
    );
  });
});

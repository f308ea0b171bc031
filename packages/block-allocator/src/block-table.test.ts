/** The block table: counts, positions, holes, and what it refuses. */
import { describe, expect, it } from 'vitest';
import { BlockTable } from './block-table.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });

function filled(blockSize: number, tokens: number): BlockTable {
  const table = new BlockTable({ blockSize });
  table.append(
    tokens,
    Array.from({ length: table.blocksFor(tokens) }, (_, index) => 10 + index),
  );
  return table;
}

function view(table: BlockTable): unknown {
  table.check();
  return {
    blocks: [...table.blocks],
    positions: [...table.positions],
    tokenCount: table.tokenCount,
    unbroken: table.unbrokenTokenCount,
  };
}

describe('BlockTable', () => {
  it('asks for a block exactly where the last one is full', () => {
    const table = new BlockTable({ blockSize: 4 });
    const needs: number[] = [];
    for (let token = 0; token < 9; token++) {
      needs.push(table.blocksFor(1));
      table.append(1, [100 + token]);
      table.check();
    }
    expect(needs).toEqual([1, 0, 0, 0, 1, 0, 0, 0, 1]);
    expect([...table.blocks]).toEqual([100, 104, 108]);
    expect(table.freeSlotCount).toBe(3);
    expect(table.slotAt(6)).toBe(104 * 4 + 2);
  });

  it('behaviour 43: a removed block shortens the table and leaves order and positions', () => {
    const table = filled(4, 14);
    table.removeBlocks(1, 1);
    expect(view(table)).toEqual({
      blocks: [10, 12, 13],
      positions: [0, 1, 2, 3, 8, 9, 10, 11, 12, 13],
      tokenCount: 14,
      unbroken: 4,
    });
    table.append(3, [77]);
    expect(view(table)).toEqual({
      blocks: [10, 12, 13, 77],
      positions: [0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16],
      tokenCount: 17,
      unbroken: 4,
    });
    table.removeBlocks(3, 1);
    expect(table.cachedTokenCount).toBe(12);
    expect(table.freeSlotCount).toBe(0);
    table.removeBlocks(0, 1);
    expect(table.unbrokenTokenCount).toBe(0);
    table.check();
    const partial = filled(4, 14);
    partial.removeBlocks(4, 0);
    expect(view(partial)).toEqual(view(filled(4, 14)));
  });

  it('counts and truncates by position, holes or not', () => {
    const table = filled(4, 14);
    table.removeBlocks(1, 1);
    expect([0, 3, 4, 6, 8, 9, 14, 99].map((p) => table.cachedTokensBefore(p))).toEqual([
      0, 3, 4, 4, 4, 5, 10, 10,
    ]);
    table.truncate(9);
    expect(view(table)).toEqual({
      blocks: [10, 12],
      positions: [0, 1, 2, 3, 8],
      tokenCount: 9,
      unbroken: 4,
    });
    table.truncate(6);
    expect(view(table)).toEqual({
      blocks: [10],
      positions: [0, 1, 2, 3],
      tokenCount: 6,
      unbroken: 4,
    });
    table.truncate(4);
    expect(table.unbrokenTokenCount).toBe(4);
    table.truncate(0);
    expect(view(table)).toEqual({ blocks: [], positions: [], tokenCount: 0, unbroken: 0 });
  });

  it('keeps chosen tokens in order, the first blocks in place', () => {
    const table = filled(4, 14);
    table.keep([0, 1, 2, 3, 5, 9, 13], 1, [50, 51], 1);
    expect(view(table)).toEqual({
      blocks: [10, 51],
      positions: [0, 1, 2, 3, 5, 9, 13],
      tokenCount: 14,
      unbroken: 4,
    });
    expect(table.slotAt(6)).toBe(51 * 4 + 2);
    table.keep([], 0, []);
    expect(table.blockCount).toBe(0);
    expect(table.tokenCount).toBe(14);
  });

  it('a prefix is a table of its own', () => {
    const table = filled(4, 14);
    const prefix = table.prefix(6);
    prefix.append(3, [90]);
    prefix.replaceBlock(1, 91);
    expect([...table.blocks]).toEqual([10, 11, 12, 13]);
    expect(view(prefix)).toEqual({
      blocks: [10, 91, 90],
      positions: [0, 1, 2, 3, 4, 5, 6, 7, 8],
      tokenCount: 9,
      unbroken: 9,
    });
    expect(view(table.prefix(0))).toEqual({
      blocks: [],
      positions: [],
      tokenCount: 0,
      unbroken: 0,
    });
  });

  it('refuses what it does not hold, and changes nothing', () => {
    const table = filled(4, 6);
    const before = view(table);
    for (const call of [
      () => table.blockAt(2),
      () => table.slotAt(6),
      () => table.positionAt(-1),
      () => table.replaceBlock(2, 5),
      () => table.removeBlocks(2, 1),
      () => table.truncate(7),
      () => table.truncate(1.5),
      () => table.prefix(7),
      () => table.append(3, []),
      () => table.append(3, [5], 1),
      () => table.append(-1, []),
      () => table.append(2 ** 31, []),
      () => table.keep([0, 1], 2, []),
      () => table.keep([0, 1], 0, []),
      () => table.keep([0, 1, 2, 3, 4, 5, 6], 0, [1, 2]),
      () => new BlockTable({ blockSize: 0 }),
    ]) {
      expect(call).toThrow(error('invalid-argument'));
    }
    expect(view(table)).toEqual(before);
  });

  it('check finds a block that occurs twice, the null block and positions out of order', () => {
    for (const ids of [
      [7, 7],
      [7, 0],
    ]) {
      const table = new BlockTable({ blockSize: 4 });
      table.append(8, ids);
      expect(() => table.check()).toThrow(error('invariant'));
    }
    const table = filled(4, 8);
    table.keep([3, 1], 0, [20]);
    expect(() => table.check()).toThrow(error('invariant'));
  });
});

/** Slot mappings and block table rows: contents, growth, reuse, bounds. */
import { describe, expect, it } from 'vitest';
import { BlockTable } from './block-table.js';
import { SlotMapping, writeBlockTable, writeSlots } from './slot-mapping.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });

function table(ids: readonly number[], tokens: number): BlockTable {
  const made = new BlockTable({ blockSize: 4 });
  made.append(tokens, ids);
  return made;
}

describe('writeSlots', () => {
  it('writes block id x blockSize + offset into either kind of array', () => {
    for (const out of [new Uint32Array(6).fill(9), new Int32Array(6).fill(9)]) {
      expect(writeSlots(table([7, 2], 6), 2, 4, out, 1)).toBe(4);
      expect([...out]).toEqual([9, 30, 31, 8, 9, 9]);
    }
    expect(writeSlots(table([], 0), 0, 0, new Uint32Array(0))).toBe(0);
  });

  it('refuses tokens that are not held and arrays without room', () => {
    const made = table([7, 2], 6);
    const out = new Uint32Array(4);
    for (const call of [
      () => writeSlots(made, 3, 4, out),
      () => writeSlots(made, 0, 7, out),
      () => writeSlots(made, -1, 1, out),
      () => writeSlots(made, 0, 3, out, 2),
      () => writeSlots(made, 0, 1, out, -1),
      () => writeBlockTable(made, out, 0, 1),
      () => writeBlockTable(made, out, 0, 5),
      () => writeBlockTable(made, out, 3),
    ]) {
      expect(call).toThrow(error('invalid-argument'));
    }
    expect([...out]).toEqual([0, 0, 0, 0]);
  });
});

describe('writeBlockTable', () => {
  it('pads a row with the null block', () => {
    const out = new Uint32Array(6).fill(9);
    expect(writeBlockTable(table([7, 2], 6), out, 1, 4)).toBe(2);
    expect([...out]).toEqual([9, 7, 2, 0, 0, 9]);
  });
});

describe('SlotMapping', () => {
  it('collects tokens of several sequences and grows', () => {
    const mapping = new SlotMapping();
    const holed = table([7, 2, 5], 12);
    holed.removeBlocks(1, 1);
    mapping.push(holed, 2, 4);
    mapping.push(table([3, 4, 6, 8, 9], 20), 0, 20);
    expect(mapping.length).toBe(24);
    expect([...mapping.slots.subarray(0, 5)]).toEqual([30, 31, 20, 21, 12]);
    expect([...mapping.positions.subarray(0, 5)]).toEqual([2, 3, 8, 9, 0]);
    expect(mapping.slots[23]).toBe(39);
    mapping.copies.push({ from: 1, to: 2, tokens: 3 });
    mapping.clear();
    expect([mapping.length, mapping.slots.length, mapping.copies.length]).toEqual([0, 0, 0]);
    mapping.push(holed, 7, 1);
    expect([...mapping.slots, ...mapping.positions]).toEqual([23, 11]);
  });

  it('is unchanged where a push is refused', () => {
    const mapping = new SlotMapping();
    mapping.push(table([7], 2), 0, 2);
    expect(() => mapping.push(table([7], 2), 1, 2)).toThrow(error('invalid-argument'));
    expect([...mapping.slots]).toEqual([28, 29]);
  });
});

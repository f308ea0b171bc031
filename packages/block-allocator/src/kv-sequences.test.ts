/**
 * Sequences over a pool. A dense reference stands for the GPU: an array of slots that executes what
 * calls hand out, and a plain list per sequence of what it should read back.
 */
import { describe, expect, it } from 'vitest';
import { BlockPool } from './block-pool.js';
import { KvSequences } from './kv-sequences.js';
import { SlotMapping, type BlockCopy } from './slot-mapping.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });
const range = (start: number, end: number): number[] =>
  Array.from({ length: end - start }, (_, index) => start + index);

/** Sequences of block size 4 over `blocks` usable blocks, and the memory behind them. */
class Fixture {
  readonly pool: BlockPool;
  readonly sequences: KvSequences;
  readonly memory: number[] = [];
  #written = 0;

  constructor(blocks: number) {
    this.pool = new BlockPool({ blockCount: blocks + 1, blockSize: 4 });
    this.sequences = new KvSequences(this.pool);
  }

  /** Appends `count` tokens of unique values and returns the values. */
  write(sequence: number, count: number): number[] {
    const { slots, copies } = this.sequences.append(sequence, count);
    this.copy(copies);
    return [...slots].map((slot) => (this.memory[slot] = ++this.#written));
  }

  copy(copies: readonly BlockCopy[]): void {
    for (const { from, to, tokens } of copies) {
      for (let offset = 0; offset < tokens; offset++) {
        this.memory[to * 4 + offset] = this.memory[from * 4 + offset] ?? NaN;
      }
    }
  }

  fork(sequence: number, tokenCount?: number): { child: number; copies: readonly BlockCopy[] } {
    const { sequence: child, copies } = this.sequences.fork(sequence, tokenCount);
    this.copy(copies);
    return { child, copies };
  }

  compact(sequence: number, kept: readonly number[]): number {
    const { from, to } = this.sequences.compact(sequence, kept);
    const moved = [...from].map((slot) => this.memory[slot] ?? NaN);
    to.forEach((slot, index) => (this.memory[slot] = moved[index] ?? NaN));
    return to.length;
  }

  read(sequence: number): number[] {
    const table = this.sequences.table(sequence);
    return range(0, table.cachedTokenCount).map((token) => this.memory[table.slotAt(token)] ?? NaN);
  }

  /** Everything observable, after a check of every invariant. */
  state(): unknown {
    this.sequences.check();
    return {
      free: [...this.pool.freeIds()],
      counts: range(0, this.pool.blockCount).map((id) => this.pool.referenceCount(id)),
      tables: range(1, 30)
        .filter((id) => this.sequences.has(id))
        .map((id) => {
          const table = this.sequences.table(id);
          return [id, [...table.blocks], [...table.positions], table.tokenCount];
        }),
    };
  }
}

describe('KvSequences', () => {
  it('behaviour 17: a cold prompt of 3 full and 1 partial block takes 4, each held once', () => {
    const { pool, sequences } = new Fixture(8);
    const prompt = sequences.create();
    const { slots, positions, copies } = sequences.append(prompt, 14);
    expect([...slots]).toEqual(range(4, 18));
    expect([...positions]).toEqual(range(0, 14));
    expect(copies).toEqual([]);
    expect(pool.freeCount).toBe(4);
    for (const id of sequences.table(prompt).blocks) expect(pool.referenceCount(id)).toBe(1);
    expect(sequences.table(prompt).freeSlotCount).toBe(2);
    sequences.check();
  });

  it('behaviour 21: decode within a block allocates nothing, crossing it exactly one', () => {
    const { pool, sequences } = new Fixture(8);
    const id = sequences.create();
    const mapping = new SlotMapping();
    sequences.append(id, 3);
    const taken: number[] = [];
    for (let token = 3; token < 13; token++) {
      const before = pool.freeCount;
      const needed = sequences.blocksNeeded(id, 1);
      mapping.clear();
      expect(sequences.tryAppend(id, 1, mapping)).toBe(mapping);
      expect(before - pool.freeCount).toBe(needed);
      expect([...mapping.positions]).toEqual([token]);
      taken.push(needed);
    }
    expect(taken).toEqual([0, 1, 0, 0, 0, 1, 0, 0, 0, 1]);
  });

  it('behaviour 35: a fork anywhere reads as its parent; one partial block is copied', () => {
    for (let at = 0; at <= 14; at++) {
      const fixture = new Fixture(8);
      const parent = fixture.sequences.create();
      const values = fixture.write(parent, 14);
      const before = fixture.pool.freeCount;
      const { child, copies } = fixture.fork(parent, at);
      expect(fixture.read(child)).toEqual(values.slice(0, at));
      expect(copies.map((copy) => copy.tokens)).toEqual(at % 4 === 0 ? [] : [at % 4]);
      expect(before - fixture.pool.freeCount).toBe(copies.length);
      expect(fixture.sequences.table(child).tokenCount).toBe(at);
      const more = fixture.write(child, 5);
      expect(fixture.read(child)).toEqual([...values.slice(0, at), ...more]);
      expect(fixture.read(parent)).toEqual(values);
      fixture.sequences.check();
    }
    const fixture = new Fixture(8);
    const parent = fixture.sequences.create();
    const values = fixture.write(parent, 14);
    expect(fixture.read(fixture.fork(parent).child)).toEqual(values);
  });

  it('behaviour 36: parent and child diverge; forks of forks outlive their ancestors', () => {
    const fixture = new Fixture(40);
    let sequence = fixture.sequences.create();
    const root = sequence;
    let expected = fixture.write(sequence, 6);
    const generations: { sequence: number; expected: number[] }[] = [];
    for (let depth = 0; depth < 8; depth++) {
      const { child } = fixture.fork(sequence, expected.length - 1);
      const grown = fixture.write(sequence, 3);
      generations.push({ sequence, expected: [...expected, ...grown] });
      expected = [...expected.slice(0, -1), ...fixture.write(child, 3)];
      sequence = child;
      for (const each of generations) expect(fixture.read(each.sequence)).toEqual(each.expected);
      expect(fixture.read(sequence)).toEqual(expected);
    }
    fixture.sequences.free(root);
    for (const each of generations.slice(1)) fixture.sequences.free(each.sequence);
    expect(fixture.read(sequence)).toEqual(expected);
    expect(fixture.sequences.sequenceCount).toBe(1);
    fixture.sequences.check();
  });

  it('behaviour 37: dropping none, part of a block, blocks, and into a shared prefix', () => {
    const fixture = new Fixture(20);
    const { sequences, pool } = fixture;
    const parent = sequences.create();
    const values = fixture.write(parent, 14);
    const { child } = fixture.fork(parent, 12);
    const before = fixture.state();
    sequences.truncate(child, 12);
    expect(fixture.state()).toEqual(before);
    sequences.truncate(parent, 13);
    expect(sequences.table(parent).blockCount).toBe(4);
    sequences.truncate(parent, 10);
    expect(fixture.read(parent)).toEqual(values.slice(0, 10));
    expect(fixture.read(child)).toEqual(values.slice(0, 12));
    const shared = sequences.table(child).blockAt(2);
    expect(pool.referenceCount(shared)).toBe(2);

    // The parent now ends inside a block that the child still reads: its next token copies it
    // first.
    expect(sequences.blocksNeeded(parent, 1)).toBe(1);
    const mapping = sequences.append(parent, 1);
    expect(mapping.copies).toEqual([
      { from: shared, to: sequences.table(parent).blockAt(2), tokens: 2 },
    ]);
    fixture.copy(mapping.copies);
    fixture.memory[mapping.slots[0] ?? NaN] = -1;
    expect(fixture.read(parent)).toEqual([...values.slice(0, 10), -1]);
    expect(fixture.read(child)).toEqual(values.slice(0, 12));
    expect(pool.referenceCount(shared)).toBe(1);

    // Once the other holder is gone no copy is needed.
    const again = fixture.fork(parent, 8).child;
    sequences.truncate(again, 6);
    sequences.free(parent);
    sequences.free(child);
    expect(sequences.append(again, 1).copies).toEqual([]);
    sequences.truncate(again, 0);
    expect(pool.freeCount).toBe(20);
    sequences.check();
  });

  it('behaviour 39: after all sequences are freed every block is free', () => {
    const fixture = new Fixture(20);
    const { sequences, pool } = fixture;
    const first = sequences.create();
    fixture.write(first, 13);
    const second = fixture.fork(first, 7).child;
    fixture.write(second, 9);
    sequences.dropBlock(second, 0);
    fixture.compact(first, [0, 5, 12]);
    const third = fixture.fork(second).child;
    for (const id of [second, first, third]) sequences.free(id);
    expect(pool.freeCount).toBe(20);
    expect(sequences.sequenceCount).toBe(0);
    sequences.check();
    for (const call of [
      () => sequences.free(first),
      () => sequences.append(first, 1),
      () => sequences.fork(first),
      () => sequences.truncate(first, 0),
      () => sequences.dropBlock(first, 0),
      () => sequences.compact(first, []),
      () => sequences.table(99),
      () => sequences.blocksNeeded(99, 1),
    ]) {
      expect(call).toThrow(error('not-found'));
    }
  });

  it('behaviour 42: compaction, then one dropped block per filled block, bound the cache', () => {
    const [budget, blockSize, seen] = [12, 4, 30];
    const fixture = new Fixture(20);
    const { sequences } = fixture;
    const id = sequences.create();
    fixture.write(id, seen);
    const kept = budget + (seen % blockSize);
    const survivors = [...range(0, 4), ...range(seen - kept + 4, seen)];
    fixture.compact(id, survivors);
    const table = sequences.table(id);
    expect(table.cachedTokenCount % blockSize).toBe(table.tokenCount % blockSize);
    for (let step = 0; step < 50; step++) {
      fixture.write(id, 1);
      const isFull = table.freeSlotCount === 0;
      if (isFull && table.cachedTokenCount > budget) sequences.dropBlock(id, 1);
      expect(table.cachedTokenCount).toBeLessThanOrEqual(budget + blockSize - 1);
      expect(table.cachedTokenCount % blockSize).toBe(table.tokenCount % blockSize);
      sequences.check();
    }
    expect(table.tokenCount).toBe(80);
  });

  it('behaviour 43: an evicted block is free again; the table shrinks, the rest stays', () => {
    const fixture = new Fixture(8);
    const { sequences, pool } = fixture;
    const id = sequences.create();
    const values = fixture.write(id, 14);
    const evicted = sequences.table(id).blockAt(1);
    sequences.dropBlock(id, 1);
    const table = sequences.table(id);
    expect(pool.freeIds().at(-1)).toBe(evicted);
    expect(table.blockCount).toBe(3);
    expect(fixture.read(id)).toEqual([...values.slice(0, 4), ...values.slice(8)]);
    expect([...table.positions]).toEqual([...range(0, 4), ...range(8, 14)]);
    expect(table.freeSlotCount).toBe(2);
    expect([...sequences.append(id, 1).positions]).toEqual([14]);
    expect(() => sequences.dropBlock(id, 4)).toThrow(error('invalid-argument'));
    sequences.check();
  });

  it('behaviour 45: evicting for one sequence changes no other, and marks the hole', () => {
    const fixture = new Fixture(20);
    const { sequences, pool } = fixture;
    const first = sequences.create();
    const values = fixture.write(first, 16);
    const second = fixture.fork(first).child;
    sequences.dropBlock(first, 1);
    expect(fixture.read(second)).toEqual(values);
    expect(pool.referenceCount(sequences.table(second).blockAt(1))).toBe(1);
    fixture.compact(first, [0, 1, 2, 3, 5, 9]);
    fixture.write(first, 20);
    expect(fixture.read(second)).toEqual(values);
    expect(sequences.table(first).unbrokenTokenCount).toBe(4);
    expect(sequences.table(second).unbrokenTokenCount).toBe(16);
    const third = fixture.fork(first).child;
    expect(sequences.table(third).unbrokenTokenCount).toBe(4);
    sequences.check();
  });

  it('compaction keeps leading blocks, moves the rest, and overwrites nothing it reads', () => {
    for (const [kept, moves] of [
      [range(0, 14), 0],
      [range(0, 9), 0],
      [[], 0],
      [[13], 1],
      [[0, 1, 2, 3, 4, 5, 6, 7, 9, 13], 2],
      [[0, 1, 2, 4, 5, 6, 7, 8], 8],
      [range(1, 14), 13],
    ] as const) {
      const fixture = new Fixture(8);
      const id = fixture.sequences.create();
      const values = fixture.write(id, 14);
      const old = new Set(fixture.sequences.table(id).blocks);
      expect(fixture.compact(id, kept)).toBe(moves);
      expect(fixture.read(id)).toEqual(kept.map((index) => values[index]));
      const table = fixture.sequences.table(id);
      expect([...table.positions]).toEqual(kept);
      expect(table.tokenCount).toBe(14);
      const stays = table.blockCount - Math.ceil(moves / 4);
      for (const block of table.blocks.subarray(stays)) expect(old.has(block)).toBe(false);
      const more = fixture.write(id, 3);
      expect(fixture.read(id)).toEqual([...kept.map((index) => values[index]), ...more]);
      fixture.sequences.check();
    }
  });

  it('each call one block short gives undefined or throws, and changes nothing', () => {
    const fixture = new Fixture(5);
    const { sequences } = fixture;
    const id = sequences.create();
    fixture.write(id, 14);
    const shared = fixture.fork(id, 12).child;
    sequences.truncate(shared, 10);
    fixture.write(sequences.create(), 4);
    expect(fixture.pool.freeCount).toBe(0);
    const mapping = new SlotMapping();
    const before = fixture.state();
    for (const attempt of [
      () => sequences.tryAppend(id, 3, mapping),
      () => sequences.tryAppend(id, 2 ** 30, mapping),
      () => sequences.tryAppend(shared, 1, mapping),
      () => sequences.tryFork(id),
      () => sequences.tryFork(id, 3),
      () => sequences.tryCompact(id, [0, 2]),
    ]) {
      expect(attempt()).toBeUndefined();
    }
    for (const attempt of [
      () => sequences.append(id, 3),
      () => sequences.append(shared, 1),
      () => sequences.fork(id),
      () => sequences.compact(id, [0, 2]),
    ]) {
      expect(attempt).toThrow(error('out-of-memory'));
    }
    expect(fixture.state()).toEqual(before);
    expect([mapping.length, mapping.copies.length]).toEqual([0, 0]);
    expect(sequences.tryAppend(id, 2, mapping)).toBe(mapping);
    expect(sequences.tryFork(id, 8)).toBeDefined();
  });

  it('refuses arguments out of range, and changes nothing', () => {
    const fixture = new Fixture(8);
    const { sequences } = fixture;
    const id = sequences.create();
    fixture.write(id, 6);
    const before = fixture.state();
    for (const call of [
      () => sequences.append(id, -1),
      () => sequences.append(id, 1.5),
      () => sequences.append(id, 2 ** 31),
      () => sequences.fork(id, 7),
      () => sequences.fork(id, -1),
      () => sequences.truncate(id, 7),
      () => sequences.dropBlock(id, -1),
      () => sequences.compact(id, [0, 6]),
      () => sequences.compact(id, [1, 1]),
      () => sequences.compact(id, [2, 1]),
      () => sequences.compact(id, [0.5]),
      () => sequences.compact(id, [NaN]),
    ]) {
      expect(call).toThrow(error('invalid-argument'));
    }
    sequences.append(id, 0);
    expect(fixture.state()).toEqual(before);
  });

  it('check finds a reference that is missing; other owners may hold more', () => {
    const fixture = new Fixture(8);
    const { sequences, pool } = fixture;
    const first = sequences.create();
    fixture.write(first, 6);
    fixture.fork(first, 4);
    pool.free(sequences.table(first).blocks, 0, 1);
    expect(() => sequences.check()).toThrow(error('invariant'));
    pool.retain(sequences.table(first).blocks, 0, 1);
    pool.retain(sequences.table(first).blocks);
    sequences.check();
    expect(sequences.append(first, 1).copies.length).toBe(1);
  });
});

/**
 * Fork, truncation, windows and holes of the manager: behaviours 32 to 39 and the part of 45 that
 * concerns allocation. "Equal" is checked through a memory that executes the copies and writes that
 * calls hand out: what a sequence reads back must be its own tokens.
 */
import { describe, expect, it } from 'vitest';
import { BlockPool } from './block-pool.js';
import { KvCacheManager } from './kv-cache-manager.js';
import type { KvCacheManagerOptions } from './kv-cache-options.js';
import { SlotMapping, type BlockCopy } from './slot-mapping.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });
const BLOCK = 4;

function run(count: number, first = 0): Uint32Array {
  return Uint32Array.from({ length: count }, (_, index) => first + index);
}

/** A manager of one group and the tokens that its slots hold. */
class Memory {
  readonly manager: KvCacheManager;
  readonly slots = new Map<number, number>();

  constructor(blockCount: number, options: KvCacheManagerOptions = {}) {
    this.manager = new KvCacheManager(new BlockPool({ blockCount, blockSize: BLOCK }), options);
  }

  start(tokens: Uint32Array): number {
    const mapping = new SlotMapping();
    const sequence = this.manager.tryAllocate(tokens, mapping);
    if (sequence === undefined) throw new Error('no room');
    const hit = tokens.length - mapping.length;
    this.copy(mapping.copies);
    mapping.slots.forEach((slot, index) => this.slots.set(slot, tokens[hit + index] ?? -1));
    this.manager.check();
    return sequence;
  }

  append(sequence: number, tokens: Uint32Array): void {
    const mapping = new SlotMapping();
    expect(this.manager.tryAppend(sequence, tokens, mapping)).toBe(true);
    this.copy(mapping.copies);
    mapping.slots.forEach((slot, index) => this.slots.set(slot, tokens[index] ?? -1));
    this.manager.check();
  }

  fork(sequence: number, position?: number): { sequence: number; copies: readonly BlockCopy[] } {
    const fork = this.manager.tryFork(sequence, position);
    if (fork === undefined) throw new Error('no room');
    const copies = fork.copies.flat();
    this.copy(copies);
    this.manager.check();
    return { sequence: fork.sequence, copies };
  }

  copy(copies: readonly BlockCopy[]): void {
    for (const { from, to, tokens } of copies) {
      for (let offset = 0; offset < tokens; offset++) {
        this.slots.set(to * BLOCK + offset, this.slots.get(from * BLOCK + offset) ?? -1);
      }
    }
  }

  read(sequence: number): number[] {
    const table = this.manager.table(sequence);
    return [...table.positions].map((_, index) => this.slots.get(table.slotAt(index)) ?? -1);
  }
}

describe('fork and truncation', () => {
  it('behaviour 35: a fork at any position equals its prefix, and copies one partial block', () => {
    for (const position of [0, 1, 3, 4, 5, 8, 9, 11, 12, 13]) {
      const memory = new Memory(20);
      const parent = memory.start(run(13));
      const { sequence, copies } = memory.fork(parent, position);
      expect(memory.read(sequence)).toEqual([...run(position)]);
      expect(copies.length).toBe(position % BLOCK === 0 ? 0 : 1);
      memory.append(sequence, run(5, 70));
      expect(memory.read(sequence)).toEqual([...run(position), ...run(5, 70)]);
      expect(memory.read(parent)).toEqual([...run(13)]);
      expect(memory.manager.match(Uint32Array.of(...run(position), ...run(5, 70), 1))).toBe(
        position + 5 - ((position + 5) % BLOCK),
      );
    }
    const memory = new Memory(20);
    const parent = memory.start(run(13));
    expect(() => memory.manager.tryFork(parent, -1)).toThrow(error('invalid-argument'));
    expect(() => memory.manager.tryFork(parent, 14)).toThrow(error('invalid-argument'));
  });

  it('behaviour 36: parent and child diverge; deep chains of forks work', () => {
    const memory = new Memory(64);
    const sequences = [memory.start(run(6))];
    const expected = [[...run(6)]];
    for (let depth = 1; depth < 12; depth++) {
      const { sequence } = memory.fork(sequences[depth - 1] ?? 0);
      memory.append(sequence, run(3, depth * 100));
      memory.append(sequences[depth - 1] ?? 0, run(1, depth * 1000));
      expected.push([...(expected[depth - 1] ?? []), ...run(3, depth * 100)]);
      expected[depth - 1]?.push(depth * 1000);
      sequences.push(sequence);
    }
    sequences.forEach((sequence, index) => expect(memory.read(sequence)).toEqual(expected[index]));
    for (const sequence of sequences) memory.manager.free(sequence);
    expect(memory.manager.pool.usage).toBe(0);
  });

  it('behaviour 37: truncation by nothing, in a block, over blocks, into what is shared', () => {
    const memory = new Memory(30);
    const parent = memory.start(run(14));
    const child = memory.fork(parent).sequence;
    const { manager } = memory;
    for (const left of [14, 13, 12, 9, 6, 4, 0]) {
      manager.truncate(child, left);
      manager.check();
      expect(memory.read(child)).toEqual([...run(left)]);
      expect(memory.read(parent)).toEqual([...run(14)]);
      expect(manager.committedTokens(child)).toBe(left);
    }
    memory.append(child, run(6, 50));
    expect(memory.read(child)).toEqual([...run(6, 50)]);
    expect(memory.read(parent)).toEqual([...run(14)]);
    expect(() => manager.truncate(child, 7)).toThrow(error('invalid-argument'));
  });

  it('what is written behind a cut cached block is cached anew, and nothing else', () => {
    const memory = new Memory(30);
    const { manager } = memory;
    const sequence = memory.start(run(8));
    manager.truncate(sequence, 6);
    expect(manager.match(run(9))).toBe(8); // the block still holds what it held
    memory.append(sequence, Uint32Array.of(66, 77));
    expect(memory.read(sequence)).toEqual([...run(6), 66, 77]);
    expect(manager.match(run(9))).toBe(4);
    expect(manager.match(Uint32Array.of(...run(6), 66, 77, 0))).toBe(8);
    const other = memory.start(Uint32Array.of(...run(6), 66, 77, 5));
    manager.truncate(sequence, 7);
    memory.append(sequence, Uint32Array.of(88));
    expect(memory.read(other)).toEqual([...run(6), 66, 77, 5]);
    expect(memory.read(sequence)).toEqual([...run(6), 66, 88]);
  });

  it('behaviour 39: after all sequences are gone every block is free', () => {
    const memory = new Memory(30);
    const first = memory.start(run(14));
    const second = memory.fork(first, 7).sequence;
    memory.append(second, run(9, 40));
    memory.manager.free(first);
    memory.manager.preempt(second);
    expect(memory.manager.pool.freeCount).toBe(29);
    expect(memory.manager.cache.tryReset()).toBe(true);
    expect(memory.manager.cache.nodes.size).toBe(0);
    expect(() => memory.manager.free(first)).toThrow(error('not-found'));
  });
});

describe('holes', () => {
  it('behaviour 45: a block behind a hole is not published; a shared block is only let go', () => {
    const memory = new Memory(30);
    const { manager } = memory;
    const one = memory.start(run(13));
    const two = memory.start(run(13));
    manager.dropBlocks(one, 1);
    manager.check();
    expect(memory.read(one)).toEqual([...run(4), ...run(5, 8)]);
    expect(memory.read(two)).toEqual([...run(13)]);
    memory.append(one, run(7, 13));
    expect(manager.match(run(21))).toBe(12);
    manager.free(two);
    expect(manager.match(run(21))).toBe(12);
    memory.append(memory.start(run(13)), run(7, 13)); // computed whole by another
    expect(manager.match(run(21))).toBe(20);
  });

  it('a truncation before the hole makes blocks publishable again', () => {
    const memory = new Memory(30);
    const { manager } = memory;
    const sequence = memory.start(run(13));
    manager.dropBlocks(sequence, 2);
    manager.truncate(sequence, 6);
    memory.append(sequence, Uint32Array.of(1, 2, 3, 4, 5, 6));
    expect(manager.match(Uint32Array.of(...run(6), 1, 2, 3, 4, 5, 6, 7))).toBe(12);
  });

  it('compaction leaves a hole, and its moves never write a block that others can hit', () => {
    const memory = new Memory(30);
    const { manager } = memory;
    const sequence = memory.start(run(14));
    const moves = manager.tryCompact(sequence, [0, 1, 2, 3, 5, 8, 13]);
    moves?.from.forEach((slot, index) => {
      memory.slots.set(moves.to[index] ?? -1, memory.slots.get(slot) ?? -1);
    });
    manager.check();
    expect(memory.read(sequence)).toEqual([0, 1, 2, 3, 5, 8, 13]);
    expect(manager.match(run(14))).toBe(12);
    memory.append(sequence, run(9, 14));
    expect(manager.match(run(30))).toBe(12);
    const other = memory.start(run(14));
    expect(memory.read(other)).toEqual([...run(14)]);
  });
});

describe('windows', () => {
  it('behaviour 32: only blocks wholly outside the window go, the oldest of them last', () => {
    const memory = new Memory(30, { groups: [{ kind: 'window', windowTokens: 6 }] });
    const { manager } = memory;
    const sequence = memory.start(run(9)); // 1 2 3; token 9 sees 4..8
    memory.append(sequence, run(1, 9));
    expect([...manager.table(sequence).blocks]).toEqual([2, 3]);
    memory.append(sequence, run(3, 10)); // token 10 sees 5..9
    expect([...manager.table(sequence).blocks]).toEqual([2, 3, 4]);
    memory.append(sequence, run(8, 13)); // token 13 sees 8..12
    expect([...manager.table(sequence).positions]).toEqual([...run(13, 8)]);
    memory.append(sequence, run(1, 21)); // token 21 sees 16..20
    expect(memory.read(sequence)).toEqual([...run(6, 16)]);
    expect([...manager.pool.freeIds()].slice(-4)).toEqual([1, 2, 4, 3]);
  });

  it('behaviour 38: sinks stay, a table is never longer than sinks, window and a block', () => {
    const groups = [{ kind: 'window', windowTokens: 9, sinkTokens: 2 }] as const;
    const memory = new Memory(30, { groups });
    const sequence = memory.start(run(5));
    for (let position = 5; position < 60; position++) {
      memory.append(sequence, run(1, position));
      const table = memory.manager.table(sequence);
      const visible = run(60).filter((at) => at < 2 || at > position - 9);
      const held = memory.read(sequence);
      for (const token of visible.filter((at) => at <= position)) expect(held).toContain(token);
      expect(table.cachedTokenCount).toBeLessThanOrEqual(BLOCK + 9 + BLOCK);
    }
    expect(memory.manager.table(sequence).tokenCount).toBe(60);
    for (const sinkTokens of [9, 10, -1]) {
      const bad = [{ kind: 'window', windowTokens: 9, sinkTokens }] as const;
      expect(() => new Memory(30, { groups: bad })).toThrow(error('invalid-argument'));
    }
  });

  it('a fork or truncation to where a window has passed is refused, with nothing changed', () => {
    const memory = new Memory(30, { groups: [{ kind: 'window', windowTokens: 6 }] });
    const { manager } = memory;
    const sequence = memory.start(run(9));
    memory.append(sequence, run(12, 9));
    memory.append(sequence, run(1, 21));
    expect(() => manager.tryFork(sequence, 20)).toThrow(error('invalid-argument'));
    expect(() => manager.truncate(sequence, 20)).toThrow(error('invalid-argument'));
    expect(manager.table(sequence).tokenCount).toBe(22);
    const fork = memory.fork(sequence, 21).sequence;
    memory.append(fork, run(5, 90));
    expect(memory.read(fork)).toEqual([...run(5, 16), ...run(5, 90)]);
    manager.check();
  });

  it('released blocks count as room for the append that releases them', () => {
    const memory = new Memory(5, { groups: [{ kind: 'window', windowTokens: 4 }] });
    const sequence = memory.start(run(16)); // all 4 blocks
    expect(memory.manager.pool.freeCount).toBe(0);
    memory.append(sequence, run(4, 16)); // token 16 sees 13..15: three blocks go
    expect(memory.manager.tryReserve(sequence, 16, new SlotMapping())).toBe(false);
    expect(memory.manager.table(sequence).blockCount).toBe(2);
    memory.append(sequence, run(12, 20));
  });
});

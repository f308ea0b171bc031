/** The block pool: counts, order, exhaustion, misuse; and random use against a plain queue. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlockPool, NULL_BLOCK } from './block-pool.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });

/** Everything observable about a pool. */
function state(pool: BlockPool): unknown {
  pool.check();
  const counts = Array.from({ length: pool.blockCount }, (_, id) => pool.referenceCount(id));
  return { counts, free: [...pool.freeIds()], freeCount: pool.freeCount, usage: pool.usage };
}

/** Asserts that `call` throws `code` and changes nothing. */
function expectRefused(pool: BlockPool, code: string, call: () => unknown): void {
  const before = state(pool);
  expect(call).toThrow(error(code));
  expect(state(pool)).toEqual(before);
}

type Operation =
  | { readonly kind: 'allocate'; readonly count: number }
  | { readonly kind: 'free' | 'retain'; readonly pick: readonly number[] }
  | { readonly kind: 'revive'; readonly pick: number };

describe('BlockPool', () => {
  it('behaviour 6: the null block is never handed out, freed, retained or counted in usage', () => {
    const pool = new BlockPool({ blockCount: 5, blockSize: 16 });
    expect(pool.freeCount).toBe(4);
    expect(pool.usage).toBe(0);
    const ids = pool.allocate(4);
    expect([...ids]).toEqual([1, 2, 3, 4]);
    expect(pool.usage).toBe(1);
    expect(pool.referenceCount(NULL_BLOCK)).toBe(0);
    expectRefused(pool, 'invalid-argument', () => pool.free([NULL_BLOCK]));
    expectRefused(pool, 'invalid-argument', () => pool.retain([NULL_BLOCK]));
    expectRefused(pool, 'invalid-argument', () => pool.revive(NULL_BLOCK));
  });

  it('behaviour 7: asking for more than is free gets nothing, and changes nothing', () => {
    const pool = new BlockPool({ blockCount: 4, blockSize: 16 });
    pool.allocate(1);
    const before = state(pool);
    const out = new Uint32Array(8).fill(99);
    expect(pool.tryAllocate(3, out)).toBeUndefined();
    expect([...out]).toEqual(Array(8).fill(99));
    expect(() => pool.allocate(3)).toThrow(
      expect.objectContaining({
        code: 'out-of-memory',
        retryable: true,
        context: { neededBlocks: 3, freeBlocks: 2, blockCount: 4 },
      }),
    );
    expect(state(pool)).toEqual(before);
    expect(pool.tryAllocate(2)).toEqual(new Uint32Array([2, 3]));
    expect(pool.tryAllocate(1)).toBeUndefined();
    expect(pool.tryAllocate(0)).toEqual(new Uint32Array(0));
  });

  it('behaviour 8: a double free is refused at every place of a list, and nothing is freed', () => {
    const pool = new BlockPool({ blockCount: 8, blockSize: 16 });
    const [a, b, c] = [1, 2, 3] as const;
    pool.allocate(3);
    pool.free([c]);
    for (const ids of [[c], [c, a], [a, c], [a, b, c], [a, a], [a, b, a]]) {
      expectRefused(pool, 'invariant', () => pool.free(ids));
    }
    for (const id of [8, -1, 1.5, NaN, Infinity]) {
      expectRefused(pool, 'invalid-argument', () => pool.free([a, id]));
      expectRefused(pool, 'invalid-argument', () => pool.retain([a, id]));
      expectRefused(pool, 'invalid-argument', () => pool.referenceCount(id));
      expectRefused(pool, 'invalid-argument', () => pool.revive(id));
    }
    expectRefused(pool, 'invariant', () => pool.retain([a, b, c]));
  });

  it('a block stays until its last reference, and one call may drop several of them', () => {
    const pool = new BlockPool({ blockCount: 4, blockSize: 16 });
    pool.allocate(2);
    pool.retain([1, 2, 1]);
    expect(pool.referenceCount(1)).toBe(3);
    pool.free([1, 1]);
    expect(pool.freeCount).toBe(1);
    expectRefused(pool, 'invariant', () => pool.free([2, 1, 2, 2]));
    pool.free([2, 1, 2]);
    expect([...pool.freeIds()]).toEqual([3, 2, 1]);
    pool.check();
  });

  it('frees last in, first out within a call, and in order between calls', () => {
    const pool = new BlockPool({ blockCount: 8, blockSize: 16 });
    const first = pool.allocate(3);
    const second = pool.allocate(2);
    pool.free(first);
    pool.free(second);
    expect([...pool.freeIds()]).toEqual([6, 7, 3, 2, 1, 5, 4]);
  });

  it('works on ranges of the arrays it is given', () => {
    const pool = new BlockPool({ blockCount: 8, blockSize: 16 });
    const out = new Int32Array(6).fill(-1);
    expect(pool.allocate(2, out, 3)).toBe(out);
    expect([...out]).toEqual([-1, -1, -1, 1, 2, -1]);
    pool.retain(out, 3, 5);
    pool.free(out, 4, 5);
    expect([pool.referenceCount(1), pool.referenceCount(2)]).toEqual([2, 1]);
    for (const [start, end] of [
      [-1, 2],
      [2, 1],
      [0, 7],
    ] as const) {
      expectRefused(pool, 'invalid-argument', () => pool.free(out, start, end));
      expectRefused(pool, 'invalid-argument', () => pool.retain(out, start, end));
    }
    expectRefused(pool, 'invalid-argument', () => pool.allocate(2, out, 5));
    expectRefused(pool, 'invalid-argument', () => pool.allocate(1, out, -1));
    expectRefused(pool, 'invalid-argument', () => pool.allocate(1, out, 0.5));
    for (const count of [-1, 0.5, NaN]) {
      expectRefused(pool, 'invalid-argument', () => pool.tryAllocate(count));
    }
  });

  it('revives a free block with its place in the list, and refuses one that is held', () => {
    const pool = new BlockPool({ blockCount: 5, blockSize: 16 });
    const ids = pool.allocate(3);
    pool.free(ids);
    expect([...pool.freeIds()]).toEqual([4, 3, 2, 1]);
    pool.revive(2);
    expect([...pool.freeIds()]).toEqual([4, 3, 1]);
    expect(pool.referenceCount(2)).toBe(1);
    expectRefused(pool, 'invariant', () => pool.revive(2));
  });

  it('refuses sizes out of range', () => {
    for (const [blockCount, blockSize] of [
      [1, 16],
      [0, 16],
      [2.5, 16],
      [2, 0],
      [2, -1],
      [2 ** 28, 16],
      [2 ** 31, 1],
    ] as const) {
      expect(() => new BlockPool({ blockCount, blockSize })).toThrow(error('invalid-argument'));
    }
  });

  it('random use equals a plain queue with reference counts', () => {
    const operation: fc.Arbitrary<Operation> = fc.oneof(
      fc.record({ kind: fc.constant('allocate'), count: fc.nat(6) }),
      fc.record({
        kind: fc.constantFrom('free', 'retain'),
        pick: fc.array(fc.nat(), { maxLength: 4 }),
      }),
      fc.record({ kind: fc.constant('revive'), pick: fc.nat() }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 20 }), fc.array(operation, { maxLength: 60 }), run),
      { numRuns: 300 },
    );
    function run(blockCount: number, operations: readonly Operation[]) {
      const pool = new BlockPool({ blockCount, blockSize: 4 });
      const free = Array.from({ length: blockCount - 1 }, (_, index) => index + 1);
      const counts = Array<number>(blockCount).fill(0);
      for (const step of operations) {
        const held = counts.flatMap((count, id) => (count > 0 ? [id] : []));
        if (step.kind === 'allocate') {
          const ids = pool.tryAllocate(step.count);
          expect(ids === undefined).toBe(step.count > free.length);
          if (ids !== undefined) expect([...ids]).toEqual(free.splice(0, step.count));
          for (const id of ids ?? []) counts[id] = 1;
        } else if (step.kind === 'revive') {
          const id = free[step.pick % Math.max(1, free.length)];
          if (id === undefined) continue;
          pool.revive(id);
          free.splice(free.indexOf(id), 1);
          counts[id] = 1;
        } else {
          if (held.length === 0) continue;
          const ids = step.pick.map((pick) => held[pick % held.length] ?? 0);
          const change = step.kind === 'free' ? -1 : 1;
          const after = [...counts];
          for (const id of ids) after[id] = (after[id] ?? 0) + change;
          if (after.some((count) => count < 0)) {
            expectRefused(pool, 'invariant', () => pool.free(ids));
            continue;
          }
          pool[step.kind](ids);
          after.forEach((count, id) => (counts[id] = count));
          for (const id of [...ids].reverse()) {
            if (counts[id] === 0 && !free.includes(id)) free.push(id);
          }
        }
        expect(state(pool)).toEqual({
          counts,
          free,
          freeCount: free.length,
          usage: 1 - free.length / (blockCount - 1),
        });
      }
    }
  });
});

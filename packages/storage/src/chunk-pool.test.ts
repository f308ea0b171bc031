/** Memory comes back whole, the latest first, and no more of it is held than the bound. */
import { describe, expect, it } from 'vitest';
import { ChunkPool } from './chunk-pool.js';

const MIB = 2 ** 20;

describe('the pool of chunks', () => {
  it('gives the latest memory that is large enough, and never to two', () => {
    const pool = new ChunkPool(8 * MIB);
    const [small, first, second] = [pool.take(MIB), pool.take(2 * MIB), pool.take(2 * MIB)];
    expect(new Set([small.buffer, first.buffer, second.buffer]).size).toBe(3);
    pool.give(first);
    pool.give(second.subarray(5, 6)); // a view of it is as good
    pool.give(small);
    const [again, other] = [pool.take(2 * MIB - 7), pool.take(MIB + 1)];
    expect([again.buffer, again.length]).toEqual([second.buffer, 2 * MIB - 7]);
    expect(other.buffer).toBe(first.buffer);
    expect(pool.take(MIB).buffer).toBe(small.buffer);
  });

  it('holds no more than its bound, and forgets the oldest', () => {
    const pool = new ChunkPool(3 * MIB);
    const chunks = Array.from({ length: 4 }, () => pool.take(MIB));
    for (const chunk of [...chunks, pool.take(4 * MIB)]) pool.give(chunk);
    const taken = Array.from({ length: 4 }, () => pool.take(MIB).buffer);
    expect(taken.slice(0, 3)).toEqual(
      chunks
        .slice(1)
        .map(({ buffer }) => buffer)
        .reverse(),
    );
    expect(taken.slice(0, 3)).not.toContain(taken[3]);
  });

  it('keeps no small memory', () => {
    const pool = new ChunkPool(MIB);
    const chunk = pool.take(1000);
    pool.give(chunk);
    expect(pool.take(1000).buffer).not.toBe(chunk.buffer);
  });
});

/**
 * No garbage in hot paths: over ten million operations the collector has nothing to do. A young
 * generation is 16 MB, so an operation that left one object behind would fill it dozens of times;
 * a few collections are allowed for the test runner and for warm-up.
 */
import { setImmediate } from 'node:timers/promises';
import { PerformanceObserver } from 'node:perf_hooks';
import { describe, expect, it } from 'vitest';
import { BlockPool } from './block-pool.js';
import { KvCacheManager } from './kv-cache-manager.js';
import { PrefixCache } from './prefix-cache.js';
import { SlotMapping } from './slot-mapping.js';

/** Runs `work` once to warm up and once measured: collections, and bytes of typed arrays made. */
async function collections(work: () => void): Promise<{ count: number; arrayBytes: number }> {
  work();
  let count = 0;
  const observer = new PerformanceObserver((list) => (count += list.getEntries().length));
  observer.observe({ entryTypes: ['gc'] });
  const before = process.memoryUsage().arrayBuffers;
  work();
  const arrayBytes = process.memoryUsage().arrayBuffers - before;
  for (let turn = 0; turn < 3; turn++) await setImmediate();
  observer.disconnect();
  return { count, arrayBytes };
}

describe('hot paths', () => {
  it('ten million blocks through a pool with a cache leave no garbage', async () => {
    const pool = new BlockPool({ blockCount: 10_000, blockSize: 16 });
    new PrefixCache(pool);
    const sequences = Array.from({ length: 40 }, () => pool.allocate(200));
    const { count, arrayBytes } = await collections(() => {
      for (let round = 0; round < 50_000; round++) {
        const ids = sequences[(round * 7) % 40];
        if (ids === undefined) throw new Error('no sequence');
        pool.free(ids);
        pool.tryAllocate(200, ids);
      }
    });
    expect(count).toBeLessThanOrEqual(3);
    expect(arrayBytes).toBeLessThan(1_000_000);
    pool.check();
  });

  it('half a million decoded tokens, hashed and published, leave no garbage', async () => {
    const manager = new KvCacheManager(new BlockPool({ blockCount: 20_000, blockSize: 16 }));
    const step = new SlotMapping();
    const prompt = (name: number): Uint32Array => new Uint32Array(20).fill(name);
    const sequences = Array.from({ length: 64 }, (_, name) =>
      manager.tryAllocate(prompt(name), step),
    );
    const tokens = new Uint32Array(64);
    let next = 0;
    const { count, arrayBytes } = await collections(() => {
      for (let round = 0; round < 8_000; round++) {
        if (round % 2_000 === 0) {
          for (const sequence of sequences) manager.truncate(sequence ?? 0, 20);
        }
        step.clear();
        for (let index = 0; index < 64; index++) {
          tokens[index] = next++;
          manager.tryAppend(sequences[index] ?? 0, tokens, step, index, index + 1);
        }
      }
    });
    expect(count).toBeLessThanOrEqual(3);
    expect(arrayBytes).toBeLessThan(1_000_000);
    manager.check();
  });
});

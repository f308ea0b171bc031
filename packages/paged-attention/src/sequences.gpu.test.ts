/**
 * Forks and evictions on the device: eviction in one sequence never changes another's tokens, and
 * attention over the survivors equals dense attention masked to them.
 */
import { createGpu } from '@vramkit/adapter';
import { countersSince, openDevice, type VramDevice } from '@vramkit/core';
import { seededRandom } from '@vramkit/core/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AttentionRecord } from './index.js';
import { CacheFixture, tableSlots } from './testing/cache-fixture.js';
import { SequenceWalk } from './testing/sequence-walk.js';

let device: VramDevice;
beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

const shape = { layers: 2, kvHeads: 2, headDim: 64, blockSize: 16, dtype: 'f16' } as const;

it.each([
  { window: Infinity, seed: 1 },
  { window: 1, seed: 2 },
  { window: 20, seed: 3 },
])('random forks and evictions, attention of $window queries', async ({ window, seed }) => {
  const random = seededRandom(seed);
  using fixture = new CacheFixture(device, random, { ...shape, blockCount: 40 });
  using walk = new SequenceWalk(fixture, random, { heads: 6, window });
  const done: string[] = [];
  try {
    for (let i = 0; i < 40; i++) done.push(await walk.step());
  } catch (error) {
    throw new Error(`seed ${seed} after ${done.join(', ')}`, { cause: error });
  }
  for (const kind of ['append', 'fork', 'drop', 'compact']) {
    expect(done.some((step) => step.startsWith(kind))).toBe(true);
  }
});

describe('an attention record', () => {
  it('creates nothing in the long run, and gives all memory back', async () => {
    const before = device.memory.stats().liveBytes;
    {
      using fixture = new CacheFixture(device, seededRandom(4), { ...shape, blockCount: 8 });
      using record = new AttentionRecord(fixture.cache, { queries: 20 });
      const table = [1, 2, 3, 4, 5];
      fixture.write(tableSlots(table, 16));
      let created = { ...device.counters };
      for (let tokens = 0; tokens < 18 * 16; tokens++) {
        // Ranges change places at every eviction, so all pairs of them come up in some time.
        if (tokens === 12 * 16) created = { ...device.counters };
        // Two blocks stay, and the one that fills.
        const contextLength = tokens < 48 ? tokens : 32 + (tokens % 16);
        record.prepare({ start: tokens, count: 1, contextLength });
        if (tokens % 16 === 15) {
          await record.read(tokens + 1, contextLength + 1);
          if (tokens > 40) record.keep(Uint32Array.from({ length: 32 }, (_, i) => i + 8));
        }
      }
      const since = countersSince(created, device.counters);
      expect(since).toMatchObject({ buffersCreated: 0, bindGroupsCreated: 0, pipelinesCreated: 0 });
    }
    expect(device.memory.stats().liveBytes).toBe(before);
  });

  it('rejects what it cannot answer', async () => {
    using fixture = new CacheFixture(device, seededRandom(5), { ...shape, blockCount: 8 });
    using record = new AttentionRecord(fixture.cache, { queries: 4 });
    const invalid = { code: 'invalid-argument' };
    await expect(record.read(16, 0)).rejects.toMatchObject(invalid);
    record.prepare({ start: 0, count: 10, contextLength: 0, promptEnd: 10 });
    await expect(record.read(9, 9)).rejects.toMatchObject(invalid);
    await expect(record.read(10, 1000)).rejects.toMatchObject(invalid);
    expect(await record.read(10, 10)).toHaveLength(10 * 2 * 2);
    expect(() => record.received(2)).toThrow(expect.objectContaining(invalid));
    expect(() => new AttentionRecord(fixture.cache, { queries: 0 })).toThrow(
      expect.objectContaining(invalid),
    );
    record.dispose();
    record.dispose();
    const disposed = expect.objectContaining({ code: 'disposed' });
    expect(() => record.prepare({ start: 10, count: 1, contextLength: 10 })).toThrow(disposed);
    expect(() => record.keep(Uint32Array.of())).toThrow(disposed);
    expect(() => record.fork()).toThrow(disposed);
  });
});

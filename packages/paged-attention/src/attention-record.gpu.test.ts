/** Failures of an attention record leave the sums as they were; sums may take many bindings. */
import { createGpu } from '@vramkit/adapter';
import { openDevice, writeRange, type MemoryResource, type VramDevice } from '@vramkit/core';
import { seededRandom } from '@vramkit/core/testing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { AttentionRecord } from './index.js';
import { CacheFixture, tableSlots } from './testing/cache-fixture.js';

let device: VramDevice;
let small: VramDevice;
beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
  small = await openDevice({ gpu, limits: { maxStorageBufferBindingSize: 1 << 14 } });
});
afterAll(() => {
  device.dispose();
  small.dispose();
});

const shape = { kvHeads: 2, headDim: 16, blockSize: 4, dtype: 'f32' } as const;
const table = Array.from({ length: 30 }, (_, i) => i + 1);

/** Memory of a device that gives out `left` more ranges. */
function limitedTo(of: VramDevice, limit: { left: number }): MemoryResource {
  return {
    tryAllocate: (request) => (limit.left-- > 0 ? of.memory.tryAllocate(request) : undefined),
    free: (allocation) => of.memory.free(allocation),
    stats: () => of.memory.stats(),
    dispose: () => undefined,
  };
}

it('clears a sum whose step had to be prepared twice for want of memory', async () => {
  using fixture = new CacheFixture(device, seededRandom(1), {
    ...shape,
    layers: 1,
    blockCount: 32,
  });
  fixture.write(tableSlots(table, 4));
  const limit = { left: Infinity };
  using record = new AttentionRecord(fixture.cache, {
    queries: 8,
    memory: limitedTo(device, limit),
  });
  using twin = new AttentionRecord(fixture.cache, { queries: 8 });
  const step = async (start: number, count: number): Promise<void> => {
    for (const each of [record, twin]) each.prepare({ start, count, contextLength: start });
    const received = [...record.received(0), ...twin.received(0)];
    const both = { received: () => received } as unknown as AttentionRecord;
    await fixture.prefill(table, { heads: 2, tokens: count, contextLength: start, record: both });
  };
  for (let start = 0; start < 4; start++) await step(start, 1);
  const before = await record.read(8, 4);
  // The sum of the past decision at 4 is used again, and another one is one too many.
  limit.left = 0;
  expect(() => record.prepare({ start: 4, count: 5, contextLength: 4 })).toThrow(
    expect.objectContaining({ code: 'out-of-memory' }),
  );
  expect(await record.read(8, 4)).toEqual(before);
  limit.left = Infinity;
  await step(4, 5);
  for (const end of [12, 16]) expect(await record.read(end, 9)).toEqual(await twin.read(end, 9));
});

it('keeps, forks, grows and reduces sums of layers that take several bindings', async () => {
  const layers = 40;
  using fixture = new CacheFixture(small, seededRandom(3), { ...shape, layers, blockCount: 32 });
  using wide = new CacheFixture(device, seededRandom(3), { ...shape, layers, blockCount: 32 });
  const results: unknown[] = [];
  for (const { cache } of [fixture, wide]) {
    using record = new AttentionRecord(cache, { queries: Infinity });
    record.prepare({ start: 0, count: 60, contextLength: 0 });
    for (let layer = 0; layer < layers; layer++) {
      for (const { sums } of record.received(layer)) {
        const values = seededRandom(layer + 9).float32Array(sums.sizeBytes / 4);
        writeRange(cache.device, sums, values);
      }
    }
    record.prepare({ start: 60, count: 40, contextLength: 60 });
    record.keep(Uint32Array.from({ length: 50 }, (_, i) => 2 * i));
    using fork = record.fork();
    const means = await fork.readBlockMeans(100, 12);
    results.push([await fork.read(100, 100), [...means].map((mean) => Math.round(mean * 1e6))]);
  }
  expect(results[0]).toEqual(results[1]);
});

it('says that a layer takes too much for one binding, and leaks nothing', () => {
  using fixture = new CacheFixture(small, seededRandom(4), {
    ...shape,
    layers: 1,
    blockCount: 600,
  });
  const before = small.memory.stats().liveBytes;
  using record = new AttentionRecord(fixture.cache, { queries: Infinity });
  record.prepare({ start: 0, count: 1500, contextLength: 0 });
  expect(() => record.prepare({ start: 1500, count: 700, contextLength: 1500 })).toThrow(
    expect.objectContaining({ code: 'unsupported' }),
  );
  record.prepare({ start: 1500, count: 548, contextLength: 1500 });
  record.dispose();
  expect(small.memory.stats().liveBytes).toBe(before);
});

it.each([0, 1])('gives back what a fork had taken before it failed at range %i', (left) => {
  using fixture = new CacheFixture(device, seededRandom(5), { ...shape, layers: 1, blockCount: 8 });
  const limit = { left: Infinity };
  using record = new AttentionRecord(fixture.cache, {
    queries: Infinity,
    memory: limitedTo(device, limit),
  });
  record.prepare({ start: 0, count: 10, contextLength: 0 });
  const before = device.memory.stats().liveBytes;
  limit.left = left;
  expect(() => record.fork()).toThrow(expect.objectContaining({ code: 'out-of-memory' }));
  expect(device.memory.stats().liveBytes).toBe(before);
});

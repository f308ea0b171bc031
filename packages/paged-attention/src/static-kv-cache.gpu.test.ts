/** A static KV cache: its buffers stay, its shapes grow, its sides take turns. */
import { createGpu } from '@vramkit/adapter';
import { countersSince, openDevice, type VramDevice } from '@vramkit/core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createStaticKvCache, type StaticKvCacheOptions } from './static-kv-cache.js';

const SHAPE = { layers: 2, kvHeads: 3, headDim: 4, capacityTokens: 5, dtype: 'f32' } as const;
let device: VramDevice;
beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
});
// SwiftShader ends the process where a device goes while writes are on their way.
afterAll(async () => {
  await device.settle();
  device.dispose();
});

const create = (options: Partial<StaticKvCacheOptions> = {}) =>
  createStaticKvCache(device, { ...SHAPE, update: 'alternate', ...options });

it('alternates: what a step wrote is what the next one reads, and no buffer is made', async () => {
  using cache = create();
  expect(cache.sizeBytes).toBe(2 * 2 * 2 * 3 * 5 * 4 * 4);
  const before = { ...device.counters };
  for (let step = 0; step < 5; step += 1) {
    for (const layer of [0, 1]) {
      const past = cache.past(layer);
      const present = cache.present(layer, 1);
      expect(past.keys.shape).toEqual([1, 3, step, 4]);
      expect(present.values.shape).toEqual([1, 3, step + 1, 4]);
      const buffers = [past.keys, past.values, present.keys, present.values];
      expect(new Set(buffers.map(({ buffer }) => buffer)).size).toBe(4);
      present.keys.write(new Float32Array(12 * (step + 1)).fill(10 * step + layer));
    }
    cache.advance(1);
    for (const layer of [0, 1]) {
      const keys = await cache.past(layer).keys.readFloats();
      expect([...keys]).toEqual(new Array(12 * (step + 1)).fill(10 * step + layer));
    }
  }
  // The reads above took their one staging buffer.
  expect(countersSince(before, device.counters).buffersCreated).toBeLessThanOrEqual(1);
});

it('in place: past and present are one buffer of the whole capacity', () => {
  using cache = create({ update: 'in-place' });
  cache.advance(2);
  const { keys, values } = cache.past(1);
  expect(cache.present(1, 3)).toEqual({ keys, values });
  expect(keys.shape).toEqual([1, 3, 5, 4]);
  expect(keys.buffer).not.toBe(values.buffer);
});

it('holds its capacity and not a token more', () => {
  using cache = create();
  cache.advance(4);
  expect(() => cache.present(0, 2)).toThrow('6 tokens exceed');
  expect(() => cache.advance(2)).toThrow('6 tokens exceed');
  expect(cache.tokens).toBe(4);
  cache.reset();
  cache.advance(5);
  expect(() => cache.past(2)).toThrow('layer 2');
});

it('takes all of its memory or none', () => {
  const { liveBytes } = device.memory.stats();
  const huge = { layers: 1, kvHeads: 64, headDim: 256, capacityTokens: 2 ** 20 };
  expect(() => create(huge)).toThrow();
  expect(device.memory.stats().liveBytes).toBe(liveBytes);
  const cache = create();
  cache.dispose();
  cache.dispose();
  expect(device.memory.stats().liveBytes).toBe(liveBytes);
});

/**
 * Attention over a paged cache against its CPU twin, on a real driver. Tolerance: see the fixture.
 */
import { createGpu } from '@vramkit/adapter';
import { openDevice, type VramDevice } from '@vramkit/core';
import { seededRandom } from '@vramkit/core/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CacheFixture } from './testing/cache-fixture.js';

let gpu: GPU;
let device: VramDevice;
let small: VramDevice;
beforeAll(async () => {
  ({ gpu } = await createGpu());
  device = await openDevice({ gpu });
  small = await openDevice({ gpu, limits: { maxStorageBufferBindingSize: 1 << 20 } });
});
afterAll(() => {
  device.dispose();
  small.dispose();
});

/** `count` distinct block ids of 1 .. blockCount - 1 in random order. */
function scattered(count: number, blockCount: number, seed: number): number[] {
  const random = seededRandom(seed);
  const ids = Array.from({ length: blockCount - 1 }, (_, i) => i + 1);
  for (let i = ids.length - 1; i > 0; i--) {
    const j = random.integer(0, i);
    [ids[i], ids[j]] = [ids[j] ?? 0, ids[i] ?? 0];
  }
  return ids.slice(0, count);
}

function slotsOf(table: readonly number[], blockSize: number): number[] {
  return table.flatMap((id) => Array.from({ length: blockSize }, (_, i) => id * blockSize + i));
}

describe.each(['f32', 'f16'] as const)('%s storage', (dtype) => {
  it.each([32, 64, 80, 128])('decodes and prefills heads of %i elements', async (headDim) => {
    const blockSize = headDim === 64 ? 8 : headDim === 80 ? 32 : 16;
    const shape = { layers: 2, kvHeads: 2, headDim, blockCount: 48, blockSize, dtype };
    using fixture = new CacheFixture(device, seededRandom(headDim), shape);
    const table = scattered(Math.ceil(260 / blockSize), 48, headDim);
    fixture.write(slotsOf(table, blockSize));
    const lengths = [0, 1, blockSize - 1, blockSize, blockSize + 1, 128, 129, 257];
    await fixture.decode(
      lengths.map((length) => ({ table, length })),
      { heads: 6, layer: 1 },
    );
    await fixture.prefill(table, { heads: 6, tokens: 67, contextLength: 0 });
    await fixture.prefill(table, { heads: 6, tokens: 21, contextLength: blockSize + 3, layer: 1 });
  });
});

it('splits over segments under a 1 MiB binding limit', async () => {
  const shape = { layers: 1, kvHeads: 3, headDim: 64, blockCount: 160, blockSize: 16 } as const;
  using fixture = new CacheFixture(small, seededRandom(5), { ...shape, dtype: 'f32' });
  expect(fixture.cache.segmentCount).toBe(4);
  const table = scattered(80, 160, 3);
  fixture.write(slotsOf(table, 16));
  await fixture.decode(
    [0, 5, 1200].map((length) => ({ table, length })),
    { heads: 9 },
  );
  await fixture.prefill(table, { heads: 9, tokens: 100, contextLength: 200 });
});

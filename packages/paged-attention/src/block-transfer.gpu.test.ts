/** Whole blocks to the host and back: the same K, V and norms, in other blocks of another cache. */
import { createGpu } from '@vramkit/adapter';
import { allocate, Batch, createTensor, openDevice, type VramDevice } from '@vramkit/core';
import { seededRandom } from '@vramkit/core/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createPagedKvCache, type PagedKvCache } from './index.js';

let gpu: GPU;
let device: VramDevice;
let small: VramDevice;
beforeAll(async () => {
  ({ gpu } = await createGpu());
  device = await openDevice({ gpu });
  // Two blocks a binding, so that the cache has several segments.
  small = await openDevice({ gpu, limits: { maxStorageBufferBindingSize: 1 << 14 } });
});
afterAll(() => {
  device.dispose();
  small.dispose();
});

const shape = { layers: 2, kvHeads: 2, headDim: 8, blockCount: 40, blockSize: 16 } as const;
const width = shape.kvHeads * shape.headDim;

const slotsOf = (blocks: readonly number[]): number[] =>
  blocks.flatMap((id) => Array.from({ length: 16 }, (_, i) => id * 16 + i));

/** Writes random K and V to all tokens of `blocks`. */
function fill(on: VramDevice, cache: PagedKvCache, blocks: readonly number[]): void {
  const random = seededRandom(7);
  const tokens = blocks.length * shape.blockSize;
  const make = (dtype: 'f32' | 'u32', count: number) =>
    createTensor(on, { dtype, shape: [count], kind: 'activations', label: 'operand' });
  const keys = make('f32', tokens * width);
  const values = make('f32', tokens * width);
  const slots = make('u32', tokens);
  slots.write(Uint32Array.from(slotsOf(blocks)));
  const rows = (range: typeof keys) => ({ range, rowStride: width, offset: 0 });
  for (const layer of [0, 1]) {
    for (const target of [keys, values]) {
      target.write(Float32Array.from({ length: tokens * width }, () => random.uniform() - 0.5));
    }
    const batch = new Batch(on, 'write');
    cache.writeKv(batch, { layer, keys: rows(keys), values: rows(values), tokens, slots });
    batch.submit();
  }
  for (const each of [keys, values, slots]) each.dispose();
}

describe.each(['f16', 'f32'] as const)('blocks of %s', (dtype) => {
  it('come back whole, in other blocks of another cache', async () => {
    const from = [3, 4, 5, 9, 38];
    const to = [1, 30, 31, 2, 17];
    using source = createPagedKvCache(device, { ...shape, dtype });
    using target = createPagedKvCache(small, { ...shape, dtype });
    expect(target.segmentCount).toBeGreaterThan(1);
    fill(device, source, from);
    const read = await source.readBlocks([...from, 3]);
    expect([...read.keys()].sort((a, b) => a - b)).toEqual(from);
    target.writeBlocks(
      new Map(to.map((id, i) => [id, read.get(from[i] ?? 0) ?? new Uint8Array()])),
    );
    for (const layer of [0, 1]) {
      const written = await source.readKv(layer, slotsOf(from));
      expect(written.keys.some((x) => x !== 0)).toBe(true);
      expect(await target.readKv(layer, slotsOf(to))).toEqual(written);
    }
    expect(await target.readNorms(slotsOf(to))).toEqual(await source.readNorms(slotsOf(from)));
    const again = await target.readBlocks(to);
    to.forEach((id, i) => expect(again.get(id)).toEqual(read.get(from[i] ?? 0)));
  });

  it('of a wrong size or id are refused, with nothing written', async () => {
    using cache = createPagedKvCache(device, { ...shape, dtype });
    fill(device, cache, [1]);
    const before = await cache.readBlocks([1]);
    const zeros = new Uint8Array(cache.bytesPerBlock);
    for (const bad of [new Map([[40, zeros]]), new Map([[2, zeros.subarray(4)]])]) {
      expect(() => cache.writeBlocks(new Map([[1, zeros], ...bad]))).toThrow(
        expect.objectContaining({ code: 'invalid-argument' }),
      );
    }
    await expect(cache.readBlocks([40])).rejects.toMatchObject({ code: 'invalid-argument' });
    expect(await cache.readBlocks([1])).toEqual(before);
    expect(await cache.readBlocks([])).toEqual(new Map());
  });
});

it('scattered blocks are read whole or not at all where staging is short', async () => {
  // One block of 64 KiB a gather, so that the gathered range is filled again for each block.
  const wide = { layers: 1, kvHeads: 8, headDim: 64, blockCount: 16, blockSize: 16 } as const;
  const tight = await openDevice({ gpu, budgetBytes: 8 << 20 });
  const cache = createPagedKvCache(tight, { ...wide, dtype: 'f32' });
  const block = (value: number) =>
    new Uint8Array(new Float32Array(cache.bytesPerBlock / 4).fill(value).buffer);
  cache.writeBlocks(new Map([0, 4, 8, 12].map((id) => [id, block(id)])));
  const { limitBytes, liveBytes } = tight.memory.stats();
  const sizeBytes = limitBytes - liveBytes - (80 << 10);
  const filler = allocate(tight.memory, { sizeBytes, kind: 'activations', label: 'filler' });
  // The first read has staging for one block and a part of the next; the second refills the range.
  const both = await Promise.allSettled([
    cache.readKv(0, slotsOf([0, 4])),
    cache.readKv(0, slotsOf([8, 12])),
  ]);
  for (const read of both) {
    expect(read).toMatchObject({ status: 'rejected', reason: { code: 'out-of-memory' } });
  }
  tight.memory.free(filler);
  const { keys } = await cache.readKv(0, slotsOf([8, 12]));
  expect(keys.every((x, i) => x === (i < keys.length / 2 ? 8 : 12))).toBe(true);
  cache.dispose();
  tight.dispose();
});

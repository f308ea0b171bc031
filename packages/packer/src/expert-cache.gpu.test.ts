/** Experts under a budget against the twin: rounds, fallbacks, prefetch, failures. */
import { createGpu } from '@vramkit/adapter';
import { Batch, openDevice, Uploader, type VramDevice } from '@vramkit/core';
import { LruPolicy } from '@vramkit/core/testing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createExpertCache, type ExpertCache, type ExpertCacheOptions } from './expert-cache.js';
import type { HostMatrix } from './kernels/host-matrix.js';
import { indexedMatmulCpu } from './kernels/matmul.cpu.js';
import { deviceTensor, sampleFloats, sampleMatrix, worstError } from './kernels/sample-matrix.js';
import { seededRandom } from './scorers/seeded-random.js';

let device: VramDevice;
let uploader: Uploader;
beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
  uploader = new Uploader(device, { method: 'write-buffer' });
});
afterAll(() => {
  uploader.dispose();
  device.dispose();
});

const FORMATS = ['affine4', 'affine3', 'affine2'] as const;
const ROWS = 21;
const COLUMNS = 64;
/** Five experts of 4 bits and two of 3; copies of 2 bits are for fallbacks. */
const widthOf = [0, 0, 0, 0, 0, 1, 1];

function weightsOf(expert: number, width: number): HostMatrix {
  const format = FORMATS[width] ?? 'affine4';
  return sampleMatrix({ format, rows: ROWS, columns: COLUMNS }, 100 * width + expert);
}

function cacheOf(options: Partial<ExpertCacheOptions> = {}): ExpertCache {
  return createExpertCache(device, uploader, {
    label: 'experts',
    widthOf,
    matrices: [{ rowsPerExpert: ROWS, columns: COLUMNS }],
    widths: [
      { format: 'affine4', slots: 2 },
      { format: 'affine3', slots: 1 },
      { format: 'affine2', slots: 2 },
    ],
    policy: () => new LruPolicy<number>(),
    read: async (expert, width) => [weightsOf(expert, width)],
    ...options,
  });
}

/** Worst error of a product whose experts come in rounds, each at the width it then has. */
async function productError(cache: ExpertCache, ids: readonly number[], weight: number) {
  const xData = sampleFloats(ids.length * COLUMNS, 5);
  using x = deviceTensor(device, xData, 'x');
  using expertIds = deviceTensor(device, Uint32Array.from(ids), 'ids');
  using y = deviceTensor(device, new Float32Array(ids.length * ROWS), 'y');
  const expected = new Float32Array(ids.length * ROWS);
  const [arena] = cache.arenas;
  let rounds = 0;
  for await (const round of cache.rounds(ids.map((expert) => ({ expert, weight })))) {
    rounds += 1;
    const batch = new Batch(device, 'experts');
    arena?.multiply(batch, { x, xRows: ids.length, expertIds, y });
    batch.submit();
    ids.forEach((id, i) => {
      const width = cache.residentWidth(id);
      if (!round.includes(id) || width === undefined) return;
      indexedMatmulCpu({
        x: xData.subarray(i * COLUMNS, (i + 1) * COLUMNS),
        xRows: 1,
        weights: weightsOf(id, width),
        rowsPerExpert: ROWS,
        expertIds: Uint32Array.of(0),
        y: expected.subarray(i * ROWS, (i + 1) * ROWS),
      });
    });
  }
  cache.check();
  return { error: worstError(await y.read(), expected, COLUMNS), rounds };
}

it('checklist 33: computes every row, whatever fits at a time', async () => {
  using cache = cacheOf();
  const next = seededRandom(3);
  for (let step = 0; step < 20; step++) {
    const ids = Array.from({ length: 1 + Math.floor(next() * 8) }, () => Math.floor(next() * 7));
    const { error, rounds } = await productError(cache, ids, 1);
    expect(error).toBeLessThanOrEqual(1);
    const needed = [0, 1].map(
      (width) => new Set(ids.filter((id) => widthOf[id] === width)).size / (width === 0 ? 2 : 1),
    );
    expect(rounds).toBe(Math.max(...needed.map(Math.ceil)));
  }
  const { hits, misses, evictions, lowBit, loadedBytes } = cache.stats();
  expect(Math.min(hits, misses, evictions, loadedBytes)).toBeGreaterThan(0);
  expect(lowBit).toBe(0);
});

it('checklist 34: brings a low-bit copy of what the router gives little weight', async () => {
  using cache = cacheOf({ lowBit: { width: 2, below: 0.3 } });
  expect((await productError(cache, [0, 3], 0.1)).error).toBeLessThanOrEqual(1);
  expect([0, 3].map((expert) => cache.residentWidth(expert))).toEqual([2, 2]);
  expect(cache.stats()).toMatchObject({ misses: 2, lowBit: 2 });
  // With more weight the full copy replaces it, and then serves little weight as well.
  expect((await productError(cache, [0], 0.6)).error).toBeLessThanOrEqual(1);
  expect(cache.residentWidth(0)).toBe(0);
  expect((await productError(cache, [0, 3], 0.1)).error).toBeLessThanOrEqual(1);
  expect(cache.stats()).toMatchObject({ hits: 2, misses: 3, lowBit: 3, evictions: 0 });
});

it('brings the experts of the highest scores ahead', async () => {
  using cache = cacheOf();
  expect(await cache.prefetch([0.1, 0.9, 0, 0.8, 0, 0.7, 0], 3)).toBe(3);
  expect([1, 3, 5].map((expert) => cache.residentWidth(expert))).toEqual([0, 0, 1]);
  expect(await cache.prefetch([0, 0.9, 0, 0.8, 0, 0.7, 0], 3)).toBe(0);
  await productError(cache, [1, 3, 5], 1);
  expect(cache.stats()).toMatchObject({ hits: 3, misses: 0, prefetched: 3 });
  // Three of one width do not displace each other: two slots hold two.
  expect(await cache.prefetch([0.9, 0, 0.9, 0, 0.9, 0, 0], 3)).toBe(2);
  cache.check();
  await expect(cache.prefetch([1], 1)).rejects.toMatchObject({ code: 'invalid-argument' });
});

it('checklist 33: scores within the margin move nothing to and fro', async () => {
  for (const margin of [undefined, 0.2]) {
    using cache = cacheOf();
    await cache.prefetch([0.9, 0.8, 0, 0, 0, 0, 0], 2);
    const options = margin === undefined ? {} : { margin };
    const swaps = [];
    // Expert 2 is a little above expert 1, then a little below it, and so on.
    for (const two of [0.85, 0.75, 0.85, 0.75]) {
      swaps.push(await cache.prefetch([0.9, 0.8, two, 0, 0, 0, 0], 2, options));
    }
    expect(swaps).toEqual(margin === undefined ? [1, 1, 1, 1] : [0, 0, 0, 0]);
    // What is clearly hotter is promoted, and what it displaces is the one that is below it.
    expect(await cache.prefetch([0.9, 0.1, 0.7, 0, 0, 0, 0], 2, options)).toBe(1);
    expect([0, 1, 2].map((expert) => cache.residentWidth(expert))).toEqual([0, undefined, 0]);
    cache.check();
  }
});

it('leaves an expert out whose reading fails, and goes on', async () => {
  let broken = true;
  using cache = cacheOf({
    read: async (expert, width) => {
      if (broken && expert === 2) throw new Error('the disk is gone');
      return [weightsOf(expert, width)];
    },
  });
  await expect(productError(cache, [1, 2], 1)).rejects.toThrow('the disk is gone');
  cache.check();
  expect([1, 2].map((expert) => cache.residentWidth(expert))).toEqual([0, undefined]);
  broken = false;
  expect((await productError(cache, [1, 2], 1)).error).toBeLessThanOrEqual(1);
  await expect(productError(cache, [9], 1)).rejects.toMatchObject({ code: 'invalid-argument' });
  const controller = new AbortController();
  controller.abort();
  const aborted = cache.rounds([{ expert: 4 }], { signal: controller.signal });
  await expect(aborted.next()).rejects.toMatchObject({ code: 'aborted' });
  cache.check();
});

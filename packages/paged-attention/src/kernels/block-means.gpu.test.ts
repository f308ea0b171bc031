/** Means over blocks against the twin, in one segment and over several; numbers not finite. */
import { createGpu } from '@vramkit/adapter';
import type { VramDevice } from '@vramkit/core';
import { compareArrays, seededRandom } from '@vramkit/core/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AttentionRecord, type NormMean } from '../index.js';
import { tokenNorms } from '../kv-layout.js';
import {
  CacheFixture,
  openDevices,
  scatteredBlocks,
  tableSlots,
} from '../testing/cache-fixture.js';
import { blockMeans } from './block-means.cpu.js';
import { keySimilarity } from './key-direction.cpu.js';

let device: VramDevice;
let small: VramDevice;
beforeAll(async () => {
  ({ device, small } = await openDevices((await createGpu()).gpu));
});
afterAll(() => {
  device.dispose();
  small.dispose();
});

const close = { absolute: 2e-6, epsilon: 2e-6 };
const shapes = [
  { segments: 1, dtype: 'f16', headDim: 64, blockSize: 16, blockCount: 48 },
  { segments: 3, dtype: 'f32', headDim: 80, blockSize: 32, blockCount: 66 },
] as const;

describe.each(shapes)('in $segments segments', ({ segments, ...shape }) => {
  const { blockSize, blockCount } = shape;
  const random = seededRandom(blockCount);
  const open = (): CacheFixture =>
    new CacheFixture(segments > 1 ? small : device, random, { layers: 3, kvHeads: 2, ...shape });

  it('of norms are those of the blocks that are listed, in their order', async () => {
    using fixture = open();
    const { cache, host } = fixture;
    const blocks = Uint32Array.from([0, ...scatteredBlocks(random, 20, blockCount)]);
    const slots = tableSlots([...blocks], blockSize);
    fixture.write(slots);
    fixture.write(slots.slice(5, 9), 0);
    fixture.write(slots.slice(40, 60), 1000);
    const numbers = { layers: 1, perLayer: (blockSize * tokenNorms(cache.layout)) / 2 };
    for (const statistic of ['keyNorm', 'valueNorm', 'valueOverKeyNorm'] as const) {
      const mean: NormMean = { statistic, epsilon: 1e-3 };
      const twin = blockMeans(host.norms, blocks, { ...numbers, layerStride: 0 }, statistic, 1e-3);
      const expected = twin.map((each) => each.mean);
      const actual = await cache.readNormMeans(blocks, mean);
      compareArrays(actual, expected, { ...close, epsilon: 1e-5, label: statistic });
    }
    expect(
      await cache.readNormMeans(new Uint32Array(), { statistic: 'keyNorm', epsilon: 0 }),
    ).toEqual(new Float64Array());
  });

  it('of likeness are those of the whole blocks that the slots make up', async () => {
    using fixture = open();
    const all = tableSlots(scatteredBlocks(random, 20, blockCount), blockSize);
    fixture.write(all);
    for (const count of [0, blockSize - 1, blockSize, 5 * blockSize + 3, all.length]) {
      const slots = Uint32Array.from(all.slice(0, count));
      const perLayer = [0, 1, 2].map((layer) => keySimilarity(fixture.host, layer, slots));
      const expected = Array.from({ length: Math.floor(count / blockSize) }, (_, block) => {
        const span = [block * blockSize * 2, (block + 1) * blockSize * 2] as const;
        const sums = perLayer.map((each) => each.slice(...span).reduce((a, b) => a + b, 0));
        return sums.reduce((a, b) => a + b, 0) / (3 * 2 * blockSize);
      });
      compareArrays(await fixture.cache.readKeySimilarityMeans(slots), expected, close);
    }
  });

  it('name the block of a number that is not finite', async () => {
    using fixture = open();
    const slots = tableSlots([0, 1, blockCount - 1], blockSize);
    fixture.write(slots);
    const blocks = Uint32Array.of(0, 1, blockCount - 1);
    for (const scale of [Infinity, NaN]) {
      fixture.write(slots.slice(blockSize + 2, blockSize + 3), scale);
      for (const statistic of ['keyNorm', 'valueNorm', 'valueOverKeyNorm'] as const) {
        await expect(
          fixture.cache.readNormMeans(blocks, { statistic, epsilon: 1e-6 }),
        ).rejects.toMatchObject({ code: 'invalid-argument', context: { block: 1 } });
      }
      const rest = Uint32Array.of(0, blockCount - 1);
      const means = await fixture.cache.readNormMeans(rest, { statistic: 'keyNorm', epsilon: 0 });
      expect([...means].every(Number.isFinite)).toBe(true);
      await expect(
        fixture.cache.readKeySimilarityMeans(Uint32Array.from(slots)),
      ).rejects.toMatchObject({ code: 'invalid-argument' });
    }
    await expect(
      fixture.cache.readNormMeans(Uint32Array.of(blockCount), { statistic: 'keyNorm', epsilon: 0 }),
    ).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  it('of sums are those of the first blocks of a sequence', async () => {
    using fixture = open();
    const { cache } = fixture;
    const capacity = 7 * 64;
    const values = random.float32Array(3 * capacity * 2);
    const sums = fixture.tensor(values);
    const numbers = { layers: 3, perLayer: blockSize * 2, layerStride: capacity * 2 };
    const blocks = Array.from({ length: capacity / blockSize }, (_, i) => i);
    const twin = blockMeans(values, blocks, numbers, 'sum', 0).map(({ mean }) => mean);
    compareArrays(await cache.readSumMeans(sums, blocks.length), twin, close);
    await expect(cache.readSumMeans(sums, blocks.length + 1)).rejects.toMatchObject({
      code: 'invalid-argument',
    });
    using record = new AttentionRecord(cache, { queries: 4 });
    await expect(record.readBlockMeans(16, 1)).rejects.toMatchObject({ code: 'invalid-argument' });
  });
});

/** Likeness of keys and moments of queries against their twins. */
import { createGpu } from '@vramkit/adapter';
import { Batch, createTensor, openDevice, type VramDevice } from '@vramkit/core';
import { compareArrays, seededRandom } from '@vramkit/core/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { QueryMoments } from './index.js';
import { keySimilarity } from './kernels/key-direction.cpu.js';
import { addQueryMoments } from './kernels/query-moments.cpu.js';
import { CacheFixture, openDevices, scatteredBlocks, tableSlots } from './testing/cache-fixture.js';

let device: VramDevice;
let small: VramDevice;
beforeAll(async () => {
  ({ device, small } = await openDevices((await createGpu()).gpu));
});
afterAll(() => {
  device.dispose();
  small.dispose();
});

describe.each([
  { segments: 1, dtype: 'f16', headDim: 64, blockSize: 16, blockCount: 48 },
  { segments: 3, dtype: 'f32', headDim: 80, blockSize: 32, blockCount: 66 },
] as const)('likeness of keys in $segments segments', ({ segments, ...shape }) => {
  it('is the cosine with the sum of unit keys, 0 for zero keys', async () => {
    const random = seededRandom(shape.headDim);
    const options = { layers: 2, kvHeads: 2, ...shape };
    using fixture = new CacheFixture(segments > 1 ? small : device, random, options);
    expect(fixture.cache.segmentCount).toBe(segments);
    const all = tableSlots(scatteredBlocks(random, 36, shape.blockCount), shape.blockSize);
    fixture.write(all);
    fixture.write(all.slice(3, 6), 0);
    fixture.write(all.slice(100, 200), 1000);
    for (const count of [0, 1, 2, 63, 65, 256, 257, 500]) {
      const slots = Uint32Array.from(all.slice(4, 4 + count));
      const actual = await fixture.cache.readKeySimilarity(slots);
      const expected = new Float32Array(count * 2 * 2);
      for (let layer = 0; layer < 2; layer++) {
        keySimilarity(fixture.host, layer, slots).forEach((cosine, i) => {
          expected[(Math.floor(i / 2) * 2 + layer) * 2 + (i % 2)] = cosine;
        });
      }
      compareArrays(actual, expected, { absolute: 5e-6, shape: [count, 2, 2] });
    }
    await expect(fixture.cache.readKeySimilarity(Uint32Array.of(1e6))).rejects.toMatchObject({
      code: 'invalid-argument',
    });
  });
});

it('norms and likeness of keys are right as far as f32 goes', async () => {
  const shape = { layers: 1, kvHeads: 1, headDim: 64, blockSize: 16, blockCount: 8 } as const;
  const random = seededRandom(3);
  using fixture = new CacheFixture(device, random, { ...shape, dtype: 'f32' });
  const slots = Uint32Array.from(tableSlots([1, 2, 3, 4, 5], shape.blockSize));
  const scales = [1e-35, 1e-22, 1e-9, 1, 1e10, 1e19, 1e25, 1e36, 0, 1e-16];
  scales.forEach((scale, i) => fixture.write([...slots.subarray(8 * i, 8 * i + 8)], scale));
  const { keyNorm, valueNorm } = await fixture.cache.readNorms(slots);
  slots.forEach((slot, i) => {
    const [key = NaN, value = NaN] = fixture.host.norms.subarray(2 * slot);
    expect(Math.abs((keyNorm[i] ?? NaN) - key)).toBeLessThanOrEqual(4e-6 * key);
    expect(Math.abs((valueNorm[i] ?? NaN) - value)).toBeLessThanOrEqual(4e-6 * value);
  });
  const expected = keySimilarity(fixture.host, 0, slots);
  compareArrays(await fixture.cache.readKeySimilarity(slots), expected, { absolute: 5e-6 });
  fixture.write(tableSlots([6], shape.blockSize), 3e37);
  const ratio = { statistic: 'valueOverKeyNorm', epsilon: 1e-6 } as const;
  expect((await fixture.cache.readNormMeans(Uint32Array.of(6), ratio))[0]).toBeCloseTo(1, 0);
  const sum = { statistic: 'keyNorm', epsilon: 0 } as const;
  await expect(fixture.cache.readNormMeans(Uint32Array.of(6), sum)).rejects.toMatchObject({
    code: 'invalid-argument',
    context: { block: 6, infinite: 0 },
  });
});

describe('query moments', () => {
  it('are mean and covariance of all queries added, per layer and head', async () => {
    const random = seededRandom(7);
    const sizes = { layers: 2, heads: 3, headDim: 20 };
    const { layers, heads, headDim } = sizes;
    using moments = new QueryMoments(small, sizes);
    const sums = Array.from(
      { length: layers },
      () => new Float32Array(heads * (headDim + 1) * headDim),
    );
    const rowStride = heads * headDim + 4;
    // The second chunk exceeds 1 MiB.
    for (const tokens of [5, 4200]) {
      for (let layer = 0; layer < layers; layer++) {
        const data = random.float32Array((tokens + 1) * rowStride);
        const size = { dtype: 'f32', shape: [data.length], kind: 'activations' } as const;
        using range = createTensor(small, { ...size, label: 'queries' });
        range.write(data);
        const batch = new Batch(small, 'moments');
        moments.add(batch, layer, { range, rowStride, offset: 8 }, tokens);
        batch.submit();
        const rows = { data, rowStride, offset: 8 };
        addQueryMoments(rows, { tokens, heads, headDim }, sums[layer] ?? new Float32Array());
      }
    }
    expect(moments.count).toBe(4205);
    const { mean, covariance } = await moments.read();
    const total = sums.flatMap((each) => [...each]);
    const part = (row: number, i: number): number =>
      (total[(row * (headDim + 1) + i) * headDim] ?? NaN) / 4205;
    expect(mean).toHaveLength(layers * heads * headDim);
    for (let row = 0; row < layers * heads; row++) {
      const meanOf = (d: number): number =>
        (total[(row * (headDim + 1) + headDim) * headDim + d] ?? NaN) / 4205;
      for (let i = 0; i < headDim; i++) {
        expect(mean[row * headDim + i]).toBeCloseTo(meanOf(i), 4);
        const expected = part(row, i) - meanOf(i) * meanOf(0);
        expect(covariance[(row * headDim + i) * headDim]).toBeCloseTo(expected, 3);
      }
    }
  });

  it('of nothing are zero; bad rows and a disposed owner are errors', async () => {
    const before = device.memory.stats().liveBytes;
    const moments = new QueryMoments(device, { layers: 1, heads: 2, headDim: 8 });
    expect((await moments.read()).mean).toEqual(new Float32Array(16));
    using range = createTensor(device, {
      ...{ dtype: 'f32', shape: [32], kind: 'activations', label: 'queries' },
    });
    const batch = new Batch(device, 'moments');
    const invalid = expect.objectContaining({ code: 'invalid-argument' });
    const rows = { range, rowStride: 16, offset: 0 };
    expect(() => moments.add(batch, 0, rows, 3)).toThrow(invalid);
    expect(() => moments.add(batch, 1, rows, 1)).toThrow(invalid);
    moments.dispose();
    moments.dispose();
    expect(() => moments.add(batch, 0, rows, 1)).toThrow(
      expect.objectContaining({ code: 'disposed' }),
    );
    expect(device.memory.stats().liveBytes - before).toBe(128);
    expect(() => new QueryMoments(device, { layers: 1, heads: 2, headDim: 6 })).toThrow(invalid);
  });

  it('take nothing of a device that is lost', async () => {
    const lost = await openDevice({ gpu: (await createGpu()).gpu });
    lost.gpuDevice.destroy();
    await lost.lost;
    const before = lost.memory.stats().liveBytes;
    expect(() => new QueryMoments(lost, { layers: 2, heads: 2, headDim: 8 })).toThrow(
      expect.objectContaining({ code: 'device-lost' }),
    );
    expect(lost.memory.stats().liveBytes).toBe(before);
    lost.dispose();
  });
});

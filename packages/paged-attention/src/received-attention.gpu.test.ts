/**
 * The attention that tokens receive, added up by decode and prefill calls, against its twin; and
 * that asking for it does not change the attention itself.
 */
import { createGpu } from '@vramkit/adapter';
import type { VramDevice } from '@vramkit/core';
import { seededRandom } from '@vramkit/core/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
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
  { segments: 1, dtype: 'f16', headDim: 64, blockSize: 16, blockCount: 48, heads: 6 },
  { segments: 3, dtype: 'f32', headDim: 32, blockSize: 32, blockCount: 140, heads: 10 },
] as const)('$dtype heads of $headDim in $segments segments', ({ heads, segments, ...shape }) => {
  let fixture: CacheFixture;
  let table: number[];
  beforeAll(() => {
    const random = seededRandom(shape.headDim);
    const options = { layers: 2, kvHeads: 2, ...shape };
    fixture = new CacheFixture(segments > 1 ? small : device, random, options);
    table = scatteredBlocks(random, Math.ceil(320 / shape.blockSize), shape.blockCount);
    fixture.write(tableSlots(table, shape.blockSize));
    expect(fixture.cache.segmentCount).toBe(segments);
  });
  afterAll(() => fixture.dispose());

  it('adds a decode step for the sequences that ask', async () => {
    const sequences = [1, 300, 16, 129].map((length) => ({ table, length }));
    await fixture.decode(sequences, { heads, layer: 1, received: [0, 1, 3] });
  });

  it('adds the last queries of a chunk, or all, to any number of sums', async () => {
    const chunk = { heads, layer: 1, tokens: 45, contextLength: 19 };
    await fixture.prefill(table, { ...chunk, received: [0, 44] });
    await fixture.prefill(table, { ...chunk, received: [13] });
  });

  it('adds in several passes where logits exceed what is taken at once', async () => {
    if (segments === 1) return;
    // 90 queries of 10 heads and 320 logits exceed 1 MiB.
    const chunk = { heads, layer: 0, tokens: 95, contextLength: 220 };
    await fixture.prefill(table, { ...chunk, received: [5] });
  });
});

it('rejects sums that are too short or queries that are not there', async () => {
  const shape = { layers: 1, kvHeads: 2, blockCount: 8, dtype: 'f16' } as const;
  using fixture = new CacheFixture(device, seededRandom(1), {
    ...shape,
    headDim: 64,
    blockSize: 16,
  });
  const invalid = { code: 'invalid-argument' };
  const sequence = { table: [1, 2], length: 20 };
  const chunk = { heads: 6, tokens: 4, contextLength: 3 };
  await expect(fixture.decode([sequence], { heads: 6, received: [1] })).rejects.toMatchObject(
    invalid,
  );
  await expect(fixture.prefill([1], { ...chunk, received: [4] })).rejects.toMatchObject(invalid);
  await expect(fixture.prefill([1], { ...chunk, received: [-1] })).rejects.toMatchObject(invalid);
});

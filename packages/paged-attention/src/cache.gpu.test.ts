/**
 * What a paged cache holds after writes, copies and moves, against its twin on the host; in one
 * segment and over several.
 */
import { createGpu } from '@vramkit/adapter';
import { arenaResource, type VramDevice } from '@vramkit/core';
import { seededRandom } from '@vramkit/core/testing';
import { afterAll, beforeAll, beforeEach, afterEach, describe, expect, it } from 'vitest';
import { SKIPPED_SLOT } from './index.js';
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
  { segments: 1, dtype: 'f16', headDim: 64, blockSize: 8, blockCount: 24 },
  { segments: 1, dtype: 'f16', headDim: 80, blockSize: 32, blockCount: 6 },
  { segments: 3, dtype: 'f32', headDim: 128, blockSize: 16, blockCount: 66 },
] as const)('$dtype heads of $headDim in $segments segments', ({ segments, ...shape }) => {
  const { blockCount, blockSize } = shape;
  // Blocks at both ends of every segment, and slots of them.
  const blocks = [0, 1, 2, 3, 4, 5].map((i) => Math.floor((i * (blockCount - 1)) / 5));
  const slots = tableSlots(blocks, blockSize);
  const random = seededRandom(shape.headDim);
  let fixture: CacheFixture;
  beforeEach(() => {
    const options = { layers: 2, kvHeads: 2, ...shape };
    fixture = new CacheFixture(segments > 1 ? small : device, random, options);
    fixture.write(slots);
  });
  afterEach(() => fixture.dispose());

  it('has them', () => expect(fixture.cache.segmentCount).toBe(segments));

  it('writes K, V and norms where the slots say, and nowhere else', async () => {
    for (const count of [0, 1, 15, 16, 17]) {
      const shuffled = scatteredBlocks(random, count, slots.length).map((i) => slots[i] ?? 0);
      fixture.write(shuffled.map((slot, i) => (i % 3 === 2 ? SKIPPED_SLOT : slot)));
    }
    await fixture.compare(slots);
  });

  it('copies whole blocks, also along chains', async () => {
    const at = (index: number): number => blocks[index] ?? 0;
    fixture.copy([
      { from: at(0), to: at(5) },
      { from: at(5), to: at(1) },
      { from: at(2), to: at(2) },
      { from: at(3), to: at(0) },
    ]);
    fixture.copy(Array.from({ length: 40 }, (_, i) => ({ from: at(i % 2), to: at(2 + (i % 4)) })));
    fixture.copy([]);
    await fixture.compare(slots);
  });

  it.each([0, 1, 5, 21])('moves %i tokens from anywhere to anywhere', async (count) => {
    const shuffled = scatteredBlocks(random, 2 * count, slots.length).map((i) => slots[i] ?? 0);
    fixture.move(
      Uint32Array.from(shuffled.slice(0, count)),
      Uint32Array.from(shuffled.slice(count)),
    );
    await fixture.compare(slots);
  });
});

it('reads norms of more blocks than are gathered at once, in the order of the slots', async () => {
  // A block has 128 KiB of norms, so 8 are gathered at once.
  const shape = { layers: 32, kvHeads: 8, headDim: 4, blockCount: 24, blockSize: 64 };
  using fixture = new CacheFixture(device, seededRandom(3), { ...shape, dtype: 'f16' });
  const slots = Array.from({ length: 24 }, (_, i) => ((i * 7) % 24) * 64 + i);
  fixture.write(slots);
  await fixture.compare(slots);
});

it('reads scattered blocks of a cache in an arena', async () => {
  const sizeBytes = 1 << 20;
  const memory = arenaResource(device.memory, { sizeBytes, kind: 'kv', label: 'arena' });
  const shape = { layers: 2, kvHeads: 2, headDim: 16, blockCount: 16, blockSize: 8 };
  const fixture = new CacheFixture(device, seededRandom(4), { ...shape, dtype: 'f32', memory });
  const slots = [3, 7, 11].flatMap((block) => [8 * block, 8 * block + 5]);
  fixture.write(slots);
  await fixture.compare(slots);
  const scattered = await fixture.cache.readBlocks([3, 7, 11]);
  for (const [id, bytes] of scattered) {
    expect(bytes).toEqual((await fixture.cache.readBlocks([id])).get(id));
  }
  fixture.dispose();
  expect(memory.stats().liveBytes).toBe(0);
  memory.dispose();
});

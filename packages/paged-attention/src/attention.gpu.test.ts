/**
 * Attention over a paged cache against its CPU twin, on a real driver. Tolerance: see the fixture.
 *
 * Software drivers compile a kernel for seconds, so that each shape here covers one value of every
 * dimension: element type, head size, block size, query heads that share a KV head.
 */
import { createGpu } from '@vramkit/adapter';
import { Batch, countersSince, type VramDevice } from '@vramkit/core';
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

const base = { layers: 2, kvHeads: 2, blockCount: 48 };

describe.each([
  { dtype: 'f32', headDim: 32, blockSize: 8, heads: 2 },
  { dtype: 'f16', headDim: 64, blockSize: 16, heads: 6 },
  { dtype: 'f16', headDim: 80, blockSize: 32, heads: 8 },
  { dtype: 'f32', headDim: 128, blockSize: 16, heads: 10 },
] as const)('$dtype heads of $headDim, blocks of $blockSize', ({ heads, ...shape }) => {
  const { blockSize } = shape;
  let fixture: CacheFixture;
  let table: number[];
  beforeAll(() => {
    const random = seededRandom(shape.headDim);
    fixture = new CacheFixture(device, random, { ...base, ...shape });
    table = scatteredBlocks(random, Math.ceil(260 / blockSize), base.blockCount);
    fixture.write(tableSlots(table, blockSize));
  });
  afterAll(() => fixture.dispose());

  it('decodes sequences of lengths around a block and a tile', async () => {
    const lengths = [0, 1, blockSize - 1, blockSize, blockSize + 1, 127, 128, 129, 257];
    const sequences = lengths.map((length) => ({ table, length }));
    await fixture.decode(sequences, { heads, layer: 1 });
  });

  it.each([
    { tokens: 1, contextLength: 0 },
    { tokens: 67, contextLength: 0 },
    { tokens: 21, contextLength: blockSize + 3 },
    { tokens: 1, contextLength: 256 },
  ])('prefills $tokens tokens after $contextLength', async (chunk) => {
    await fixture.prefill(table, { heads, layer: 1, ...chunk });
  });
});

describe('a cache of several segments', () => {
  // Blocks of 32 KiB, so 32 of them in a binding.
  const shape = { dtype: 'f32', headDim: 128, blockSize: 16, kvHeads: 2, layers: 1 } as const;

  it('attends over segments, with rows beyond one binding', async () => {
    const random = seededRandom(5);
    using fixture = new CacheFixture(small, random, { ...shape, blockCount: 80 });
    expect(fixture.cache.segmentCount).toBe(3);
    const table = scatteredBlocks(random, 30, 80);
    fixture.write(tableSlots(table, 16));
    const sequences = [0, 5, 480].map((length) => ({ table, length }));
    await fixture.decode(sequences, { heads: 10 });
    // 220 rows of 5,168 bytes exceed 1 MiB.
    await fixture.prefill(table, { heads: 10, tokens: 220, contextLength: 35 });
  });
});

describe('numbers', () => {
  const shape = { ...base, dtype: 'f16', headDim: 64, blockSize: 16 } as const;

  it('logits beyond the range of exp give no overflow', async () => {
    using fixture = new CacheFixture(device, seededRandom(8), shape);
    fixture.write(tableSlots([3, 1, 2], 16), 1000);
    await fixture.decode([{ table: [3, 1, 2], length: 48 }], { heads: 6, queryScale: 1000 });
  });

  it('what stands behind the last visible slot does not matter, not even NaN', async () => {
    using fixture = new CacheFixture(device, seededRandom(9), shape);
    const slots = tableSlots([3, 1, 2], 16);
    fixture.write(slots.slice(33), Number.NaN);
    fixture.write(slots.slice(0, 33));
    const output = await fixture.decode([{ table: [3, 1, 2], length: 33 }], { heads: 6 });
    expect(output.every(Number.isFinite)).toBe(true);
    const prefilled = await fixture.prefill([3, 1, 2], { heads: 6, tokens: 30, contextLength: 3 });
    expect(prefilled.every(Number.isFinite)).toBe(true);
  });

  it.each([
    { segments: 1, blockCount: 48, infinite: 20 },
    { segments: 2, blockCount: 200, infinite: 37 },
  ])('token $infinite does not matter to queries before it', async (one) => {
    const { segments, blockCount, infinite } = one;
    const random = seededRandom(infinite);
    using fixture = new CacheFixture(small, random, { ...shape, blockCount });
    expect(fixture.cache.segmentCount).toBe(segments);
    const table = [blockCount - 1, 1, blockCount - 2];
    const slots = tableSlots(table, 16);
    fixture.write(slots);
    fixture.write(slots.slice(infinite, infinite + 1), Infinity);
    const call = { heads: 6, tokens: 45, contextLength: 3 };
    const before = infinite - call.contextLength;
    const rows = await fixture.prefill(table, { ...call, compared: before });
    expect(rows.subarray(0, before * 6 * 64).every(Number.isFinite)).toBe(true);
  });

  it('takes a factor of the logits', async () => {
    using fixture = new CacheFixture(device, seededRandom(10), shape);
    fixture.write(tableSlots([1, 2], 16));
    await fixture.decode([{ table: [1, 2], length: 20 }], { heads: 6, scale: 0.7 });
  });
});

it('creates nothing once each call was made', async () => {
  const shape = { ...base, dtype: 'f16', headDim: 64, blockSize: 16 } as const;
  using fixture = new CacheFixture(device, seededRandom(11), shape);
  const { cache } = fixture;
  const [heads, sequences, tokens] = [6, 2, 40];
  const table = tableSlots([1], 46).slice(0, 40);
  fixture.write(tableSlots(table, 16));
  const rows = (count: number, width: number) => ({
    range: fixture.tensor(new Float32Array(count * width)),
    rowStride: width,
    offset: 0,
  });
  const queries = rows(tokens, heads * 64);
  const output = rows(tokens, heads * 64);
  const kv = rows(tokens, 2 * 64);
  const slots = fixture.tensor(Uint32Array.from({ length: tokens }, (_, i) => 700 + i));
  const lengths = fixture.tensor(new Uint32Array(sequences));
  const blockTables = fixture.tensor(Uint32Array.from([...table, ...table]));
  const step = (length: number): void => {
    const batch = new Batch(device, 'step');
    lengths.write(Uint32Array.of(length, length - 1));
    cache.writeKv(batch, { layer: 0, keys: kv, values: kv, slots, tokens: 1 + (length % tokens) });
    const call = { layer: 1, heads, queries, output };
    const sizes = { tableStride: table.length, sequences, maxLength: length };
    cache.decodeAttention(batch, { ...call, ...sizes, blockTables, lengths });
    const chunk = { tokens: 1 + (length % tokens), contextLength: length };
    cache.prefillAttention(batch, { ...call, ...chunk, blockTable: blockTables });
    batch.submit();
  };
  step(1);
  await cache.readNorms([16, 40, 500]);
  const before = { ...device.counters };
  // From one partition to several.
  for (let length = 2; length < 600; length += 23) step(length);
  await cache.readNorms([100, 17, 300]);
  expect(countersSince(before, device.counters)).toMatchObject({
    buffersCreated: 0,
    bindGroupsCreated: 0,
    pipelinesCreated: 0,
  });
  await device.settle();
});

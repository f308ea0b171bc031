/** Ownership, accounting and bad input of a paged cache. */
import { createGpu } from '@vramkit/adapter';
import { Batch, createTensor, limitedResource, openDevice, type VramDevice } from '@vramkit/core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createPagedKvCache, type PagedKvCache } from './index.js';

let gpu: GPU;
let device: VramDevice;
beforeAll(async () => {
  ({ gpu } = await createGpu());
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

const shape = {
  layers: 2,
  kvHeads: 2,
  headDim: 64,
  blockCount: 8,
  blockSize: 16,
  dtype: 'f16',
} as const;

describe('memory', () => {
  it('is of kind kv, as many bytes as said, and all given back', () => {
    const before = device.memory.stats();
    const cache = createPagedKvCache(device, { ...shape, reserve: { heads: 4, sequences: 3 } });
    // 8 blocks: 2 layers * (K and V of 2 heads * 16 * 64 * 2 bytes), 16 * 2 * 2 * 2 norms.
    expect(cache.sizeBytes).toBe(8 * (2 * 2 * 2 * 16 * 64 * 2 + 16 * 2 * 2 * 2 * 4));
    const { liveBytesByKind: live } = device.memory.stats();
    expect(live.kv - before.liveBytesByKind.kv).toBe(cache.sizeBytes);
    const scratch =
      live.activations -
      before.liveBytesByKind.activations +
      (live.staging - before.liveBytesByKind.staging);
    expect(scratch).toBe(cache.scratchBytes);
    cache.dispose();
    cache.dispose();
    expect(device.memory.stats().liveBytesByKind).toEqual(before.liveBytesByKind);
  });

  it('is taken all or not at all', () => {
    using whole = createPagedKvCache(device, { ...shape });
    const { liveBytes: before } = device.memory.stats();
    const limitBytes = whole.sizeBytes + whole.scratchBytes - 1;
    const memory = limitedResource(device.memory, { limitBytes });
    expect(() => createPagedKvCache(device, { ...shape, memory })).toThrow(
      expect.objectContaining({ code: 'out-of-memory' }),
    );
    const tight = limitedResource(device.memory, { limitBytes: whole.sizeBytes / 2 });
    expect(() => createPagedKvCache(device, { ...shape, memory: tight })).toThrow(
      expect.objectContaining({
        code: 'out-of-memory',
        context: expect.objectContaining({ kind: 'kv' }) as unknown,
      }),
    );
    expect(device.memory.stats().liveBytes).toBe(before);
    memory.dispose();
    tight.dispose();
  });

  it('of one block beyond a binding is unsupported', async () => {
    const tiny = await openDevice({ gpu, limits: { maxStorageBufferBindingSize: 1 << 14 } });
    expect(() => createPagedKvCache(tiny, { ...shape, blockSize: 64 })).toThrow(
      expect.objectContaining({ code: 'unsupported' }),
    );
    tiny.dispose();
  });
});

/** Operands that fit every call below: 4 rows of 4 heads. */
function operands(device: VramDevice) {
  const make = (dtype: 'f32' | 'u32', count: number) =>
    createTensor(device, { dtype, shape: [count], kind: 'activations', label: 'operand' });
  const floats = make('f32', 4 * 256);
  const indices = make('u32', 16);
  const other = make('f32', 4 * 256);
  const rows = { range: floats, rowStride: 256, offset: 0 };
  return { rows, indices, output: { ...rows, range: other }, owned: [floats, indices, other] };
}

describe('calls', () => {
  let cache: PagedKvCache;
  let given: ReturnType<typeof operands>;
  let calls: ReturnType<typeof goodCalls>;
  const batch = (): Batch => new Batch(device, 'bad input');

  function goodCalls() {
    const { rows, output, indices } = given;
    const attention = { layer: 0, queries: rows, heads: 4, output };
    return {
      write: { layer: 0, keys: rows, values: rows, slots: indices, tokens: 4 },
      decode: {
        ...attention,
        ...{ blockTables: indices, tableStride: 4, lengths: indices },
        ...{ sequences: 4, maxLength: 64 },
      },
      prefill: { ...attention, blockTable: indices, tokens: 4, contextLength: 60 },
      moves: { from: indices, to: indices, count: 4 },
    };
  }

  beforeEach(() => {
    cache = createPagedKvCache(device, shape);
    given = operands(device);
    calls = goodCalls();
  });
  afterEach(() => {
    cache.dispose();
    for (const tensor of given.owned) tensor.dispose();
  });

  const expectInvalid = (call: () => void): void => {
    const { dispatches } = device.counters;
    const { liveBytes } = device.memory.stats();
    expect(call).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
    expect(device.counters.dispatches).toBe(dispatches);
    expect(device.memory.stats().liveBytes).toBe(liveBytes);
  };

  it.each([
    { layer: 2 },
    { layer: -1 },
    { layer: 0.5 },
    { tokens: 5 },
    { tokens: 17 },
    { tokens: -1 },
  ])('writeKv rejects %o', (change) => {
    expectInvalid(() => cache.writeKv(batch(), { ...calls.write, ...change }));
  });

  it.each([
    { layer: 2 },
    { heads: 3 },
    { heads: 6 },
    { heads: 0 },
    { sequences: 5 },
    { tableStride: 0 },
    { tableStride: 5 },
    { maxLength: 65 },
    { tableStride: 4, sequences: 1, maxLength: 129 },
    { maxLength: Number.NaN },
  ])('decodeAttention rejects %o', (change) => {
    expectInvalid(() => cache.decodeAttention(batch(), { ...calls.decode, ...change }));
  });

  it.each([
    { layer: 2 },
    { heads: 5 },
    { tokens: 5 },
    { contextLength: 125 },
    { contextLength: -1 },
    { tokens: 1.5 },
  ])('prefillAttention rejects %o', (change) => {
    expectInvalid(() => cache.prefillAttention(batch(), { ...calls.prefill, ...change }));
  });

  it('prefillAttention rejects a block table that is too short', () => {
    const short = { ...given.indices, sizeBytes: 12, offsetBytes: 0 };
    const blockTable = { buffer: given.indices.buffer, ...short };
    expectInvalid(() => cache.prefillAttention(batch(), { ...calls.prefill, blockTable }));
  });

  it('copies, moves and reads reject blocks and slots that do not exist', async () => {
    expectInvalid(() => cache.copyBlocks(batch(), [{ from: 0, to: 8 }]));
    expectInvalid(() => cache.copyBlocks(batch(), [{ from: -1, to: 2 }]));
    expectInvalid(() => cache.moveSlots(batch(), { ...calls.moves, count: 17 }));
    expectInvalid(() => cache.moveSlots(batch(), { ...calls.moves, count: -1 }));
    for (const slots of [[128], [-1], [0.5], [Number.NaN]]) {
      await expect(cache.readNorms(slots)).rejects.toMatchObject({ code: 'invalid-argument' });
      await expect(cache.readKv(0, slots)).rejects.toMatchObject({ code: 'invalid-argument' });
    }
    await expect(cache.readKv(2, [0])).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  it('about nothing record nothing', async () => {
    const { dispatches } = device.counters;
    cache.writeKv(batch(), { ...calls.write, tokens: 0 });
    cache.decodeAttention(batch(), { ...calls.decode, sequences: 0 });
    cache.prefillAttention(batch(), { ...calls.prefill, tokens: 0 });
    cache.moveSlots(batch(), { ...calls.moves, count: 0 });
    cache.copyBlocks(batch(), []);
    expect(device.counters.dispatches).toBe(dispatches);
    expect((await cache.readNorms([])).keyNorm).toHaveLength(0);
    expect((await cache.readKv(1, [])).keys).toHaveLength(0);
  });

  it('after disposal throw', async () => {
    cache.dispose();
    const disposed = expect.objectContaining({ code: 'disposed' });
    expect(() => cache.writeKv(batch(), calls.write)).toThrow(disposed);
    expect(() => cache.decodeAttention(batch(), calls.decode)).toThrow(disposed);
    expect(() => cache.prefillAttention(batch(), calls.prefill)).toThrow(disposed);
    expect(() => cache.copyBlocks(batch(), [])).toThrow(disposed);
    expect(() => cache.moveSlots(batch(), calls.moves)).toThrow(disposed);
    await expect(cache.readNorms([0])).rejects.toMatchObject({ code: 'disposed' });
    await expect(cache.readKv(0, [0])).rejects.toMatchObject({ code: 'disposed' });
  });
});

it.each([{ layers: 0 }, { headDim: 30 }, { blockSize: 6 }, { blockCount: -1 }, { kvHeads: 0 }])(
  'a cache of %o is refused, with nothing taken',
  (change) => {
    const { liveBytes } = device.memory.stats();
    expect(() => createPagedKvCache(device, { ...shape, ...change })).toThrow(
      expect.objectContaining({ code: 'invalid-argument' }),
    );
    const reserve = { heads: 3, sequences: 1 };
    expect(() => createPagedKvCache(device, { ...shape, reserve })).toThrow(
      expect.objectContaining({ code: 'invalid-argument' }),
    );
    expect(device.memory.stats().liveBytes).toBe(liveBytes);
  },
);

/** Experts of several widths against the twin of each: one dispatch a width, slots that change. */
import { createGpu } from '@vramkit/adapter';
import { Batch, countersSince, openDevice, Uploader, type VramDevice } from '@vramkit/core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createExpertArena, type ExpertArena, type ExpertWidth } from './expert-arena.js';
import type { HostMatrix } from './kernels/host-matrix.js';
import { createMatrix } from './matrix.js';
import { indexedMatmulCpu } from './kernels/matmul.cpu.js';
import { deviceTensor, sampleFloats, sampleMatrix, worstError } from './kernels/sample-matrix.js';

let gpu: GPU;
let device: VramDevice;
let uploader: Uploader;
beforeAll(async () => {
  ({ gpu } = await createGpu());
  device = await openDevice({ gpu });
  uploader = new Uploader(device, { method: 'write-buffer' });
});
afterAll(() => {
  uploader.dispose();
  device.dispose();
});

const FORMATS = ['affine2', 'affine3', 'affine4', 'affine8', 'f16'] as const;
/** Some widths have compact factors, and one groups of the whole row, alone in their words. */
const STORED: readonly Omit<ExpertWidth, 'slots'>[] = [
  { format: 'affine2', groupSize: 16, factors: 'compact' },
  { format: 'affine3', groupSize: 32, factors: 'compact' },
  { format: 'affine4', groupSize: 64, factors: 'compact' },
  { format: 'affine8' },
  { format: 'f16' },
];
const shape = { rows: 21, columns: 64 };
const experts = 7;
const options = { label: 'experts', experts, rowsPerExpert: 21, columns: 64 };

function arenaOf(slots: number): ExpertArena {
  return createExpertArena(device, {
    ...options,
    widths: STORED.map((stored) => ({ ...stored, slots })),
  });
}

function weightsOf(width: number, seed: number): HostMatrix {
  return sampleMatrix({ ...shape, ...(STORED[width] ?? { format: 'affine4' }) }, seed);
}

const store = (arena: ExpertArena, expert: number, width: number, host: HostMatrix) => {
  const { codes, scales } = host;
  const dense = new Uint16Array(codes.buffer);
  const rows = width === 4 ? { dense } : { codes, scales };
  return arena.tryStore(uploader, expert, { width, rows });
};

/** Worst error of a product over `ids`; experts that are not there must leave what was there. */
async function productError(
  arena: ExpertArena,
  held: ReadonlyMap<number, HostMatrix>,
  ids: readonly number[],
): Promise<number> {
  const xData = sampleFloats(ids.length * 64, 5);
  const before = sampleFloats(ids.length * 21, 6);
  const expected = before.slice();
  ids.forEach((id, i) => {
    const host = held.get(id);
    if (id < experts && host === undefined) return;
    const y = new Float32Array(21);
    const weights = host ?? weightsOf(0, 1);
    const expertIds = Uint32Array.of(host === undefined ? 9 : 0);
    const x = xData.subarray(i * 64, (i + 1) * 64);
    indexedMatmulCpu({ x, xRows: 1, weights, rowsPerExpert: 21, expertIds, y });
    expected.set(y, i * 21);
  });
  using x = deviceTensor(device, xData, 'x');
  using expertIds = deviceTensor(device, Uint32Array.from(ids), 'ids');
  let worst = 0;
  for (const tuning of [
    { vector: 'lanes', matrix: 'lanes' },
    { vector: 'split', matrix: 'tiled' },
  ] as const) {
    using y = deviceTensor(device, before, 'y');
    const batch = new Batch(device, 'experts');
    arena.multiply(batch, { x, xRows: ids.length, expertIds, y, tuning });
    batch.submit();
    worst = Math.max(worst, worstError(await y.read(), expected, 64));
  }
  return worst;
}

it('checklist 1: multiplies with experts of every width, ids on the device', async () => {
  using arena = arenaOf(2);
  const held = new Map<number, HostMatrix>();
  for (let expert = 0; expert < 6; expert++) {
    const host = weightsOf(expert % 5, 30 + expert);
    held.set(expert, host);
    expect(await store(arena, expert, expert % 5, host)).toBe(true);
  }
  arena.check();
  expect(await productError(arena, held, [5, 0, 1, 6, 2, 0xffffffff, 3, 4, 0])).toBeLessThanOrEqual(
    1,
  );
});

it('checklist 33: promotes and demotes an expert behind its number', async () => {
  using arena = arenaOf(1);
  const held = new Map<number, HostMatrix>();
  for (const [width, seed] of [
    [0, 50],
    [3, 51],
    [3, 52],
    [1, 53],
  ] as const) {
    const host = weightsOf(width, seed);
    const stored = await store(arena, 2, width, host);
    // A second copy of the same width needs a second slot, and there is one.
    expect(stored).toBe(seed !== 52);
    if (stored) held.set(2, host);
    arena.check();
    expect(await productError(arena, held, [2, 1, 2])).toBeLessThanOrEqual(1);
  }
  expect(await store(arena, 4, 1, weightsOf(1, 60))).toBe(false);
  expect(arena.freeSlots(1)).toBe(0);
  arena.remove(2);
  arena.remove(2);
  held.delete(2);
  arena.check();
  expect(arena.place(2)).toBeUndefined();
  expect(arena.freeSlots(1)).toBe(1);
  expect(await productError(arena, held, [2, 0])).toBeLessThanOrEqual(1);
});

it('one dispatch a width, and nothing is created when experts move', async () => {
  using arena = arenaOf(2);
  await store(arena, 0, 0, weightsOf(0, 1));
  using x = deviceTensor(device, sampleFloats(64, 1), 'x');
  using expertIds = deviceTensor(device, Uint32Array.of(0), 'ids');
  using y = deviceTensor(device, new Float32Array(21), 'y');
  const step = (): void => {
    const batch = new Batch(device, 'step');
    arena.multiply(batch, { x, xRows: 1, expertIds, y });
    batch.submit();
  };
  step();
  const before = { ...device.counters };
  await store(arena, 0, 1, weightsOf(1, 2));
  step();
  await device.settle();
  const since = countersSince(before, device.counters);
  expect(since.dispatches).toBe(FORMATS.length);
  expect([since.buffersCreated, since.bindGroupsCreated, since.pipelinesCreated]).toEqual([
    0, 0, 0,
  ]);
});

it('checklist 32: rows of another width or number are refused, and change nothing', async () => {
  using arena = arenaOf(1);
  const { codes, scales } = weightsOf(0, 1);
  const wrong = { width: 2, rows: { codes, scales } };
  const invalid = { code: 'invalid-argument' };
  await expect(arena.tryStore(uploader, 1, wrong)).rejects.toMatchObject(invalid);
  await expect(
    arena.tryStore(uploader, 1, { width: 4, rows: { codes, scales } }),
  ).rejects.toMatchObject(invalid);
  await expect(
    arena.tryStore(uploader, 7, { width: 0, rows: { codes, scales } }),
  ).rejects.toMatchObject(invalid);
  arena.check();
  expect(arena.freeSlots(2)).toBe(1);
  expect(arena.slotBytes(0)).toBe(21 * (16 + 8));
});

it('checklist 30: what the device cannot bind is refused before memory is taken', async () => {
  const small = await openDevice({ gpu, limits: { maxStorageBufferBindingSize: 2 ** 14 } });
  const { liveBytes } = small.memory.stats();
  const wide = { rows: 2, columns: 8192, label: 'wide' };
  const make = (format: (typeof FORMATS)[number]) => () =>
    createMatrix(small, { ...wide, format }).dispose();
  // 16 KiB hold 8192 columns in 8 bits or fewer, and so the message says.
  expect(make('f16')).not.toThrow();
  const tooWide = { ...wide, columns: 16_384, format: 'f16' } as const;
  expect(() => createMatrix(small, tooWide)).toThrow(
    expect.objectContaining({
      code: 'unsupported',
      message: expect.stringContaining('use fewer bits'),
      context: { rowBytes: 32_768, limitBytes: 16_384 },
    }),
  );
  createMatrix(small, { ...tooWide, format: 'affine3' }).dispose();
  const widths = [
    { format: 'affine2', slots: 1 },
    { format: 'f16', slots: 1 },
  ] as const;
  const experts16 = { label: 'e', experts: 2, rowsPerExpert: 1, columns: 16_384, widths };
  expect(() => createExpertArena(small, experts16)).toThrow(
    expect.objectContaining({ code: 'unsupported' }),
  );
  for (const [format, groupSize] of [
    ['affine2', 48],
    ['affine4', 20],
  ] as const) {
    const columns = 2 * groupSize;
    const uneven = { rows: 1, columns, format, groupSize, label: 'uneven' };
    expect(() => createMatrix(small, uneven)).toThrow(
      expect.objectContaining({ code: 'invalid-argument' }),
    );
  }
  expect(small.memory.stats().liveBytes).toBe(liveBytes);
  small.dispose();
});

it('takes all memory or none', async () => {
  // The device takes 256 KiB for uniforms when it opens.
  const small = await openDevice({ gpu, budgetBytes: 2 ** 18 + 40_000 });
  const { liveBytes } = small.memory.stats();
  const widths = [
    { format: 'affine4', slots: 7 },
    { format: 'f32', slots: 7 },
  ] as const;
  expect(() => createExpertArena(small, { ...options, widths })).toThrow(
    expect.objectContaining({ code: 'out-of-memory' }),
  );
  expect(small.memory.stats().liveBytes).toBe(liveBytes);
  small.dispose();
});

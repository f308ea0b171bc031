/** Products against their CPU twins: every storage, odd sizes, splits, offsets, aliasing. */
import { createGpu } from '@vramkit/adapter';
import {
  arenaResource,
  Batch,
  countersSince,
  createTensor,
  openDevice,
  type VramDevice,
} from '@vramkit/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { indexedMatmul } from './indexed-matmul.js';
import { indexedMatmulCpu, matmulCpu } from './kernels/matmul.cpu.js';
import {
  COMPACT,
  deviceMatrix,
  deviceTensor,
  OTHER_GROUPS,
  sampleFloats,
  sampleMatrix,
  STORAGES,
  worstError,
} from './kernels/sample-matrix.js';
import { matmul, type MatmulArguments } from './matmul.js';
import type { MatmulTuning } from './matmul-tuning.js';
import { tuneMatmul } from './tune-matmul.js';
import type { MatrixShape } from './matrix-layout.js';

let gpu: GPU;
let device: VramDevice;
beforeAll(async () => {
  ({ gpu } = await createGpu());
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

/** Every kernel; a device without subgroups takes the second choice for the first. */
const TUNINGS: readonly MatmulTuning[] = [
  { vector: 'lanes', matrix: 'lanes' },
  { vector: 'split', matrix: 'tiled' },
];

type Extra = Omit<MatmulArguments, 'x' | 'xRows' | 'weights' | 'y'>;

/** Worst error of all kernels in units of the tolerance, everything around the result included. */
async function productError(
  on: VramDevice,
  shape: MatrixShape,
  xRows: number,
  extra: Extra = {},
): Promise<number> {
  const { firstXRow = 0, yOffset = 0, yStride = shape.rows } = extra;
  const host = sampleMatrix(shape, 7);
  const xData = sampleFloats((firstXRow + Math.max(1, xRows)) * shape.columns, 11);
  const before = sampleFloats(yOffset + Math.max(1, xRows) * yStride + 3, 13);
  const expected = before.slice();
  matmulCpu({ x: xData, xRows, weights: host, y: expected, ...extra });
  const weights = await deviceMatrix(on, host);
  using x = deviceTensor(on, xData, 'x');
  let worst = 0;
  try {
    for (const tuning of TUNINGS) {
      using y = deviceTensor(on, before, 'y');
      const batch = new Batch(on, 'product');
      matmul(batch, { x, xRows, weights, y, tuning, ...extra });
      batch.submit();
      worst = Math.max(worst, worstError(await y.read(), expected, shape.columns));
    }
    return worst;
  } finally {
    weights.dispose();
  }
}

describe.each(STORAGES)('matmul of $format $groupSize', (storage) => {
  it.each([0, 1, 2, 3, 4, 5, 8, 9, 17, 35])('%i rows of x, odd widths', async (xRows) => {
    for (const rows of [1, 7, 64, 65]) {
      const shape = { ...storage, rows, columns: 96 };
      expect(await productError(device, shape, xRows)).toBeLessThanOrEqual(1);
    }
  });

  it.each([32, 64, 160, 576])('%i columns', async (columns) => {
    for (const xRows of [1, 6]) {
      const shape = { ...storage, rows: 33, columns };
      expect(await productError(device, shape, xRows)).toBeLessThanOrEqual(1);
    }
  });

  it('takes the fewest columns that the format allows', async () => {
    const shape = { ...storage, rows: 5, columns: storage.groupSize ?? 4 };
    for (const xRows of [1, 5]) {
      expect(await productError(device, shape, xRows)).toBeLessThanOrEqual(1);
    }
  });

  it('adds, offsets and strides', async () => {
    const extra = { accumulate: true, firstXRow: 3, yOffset: 5, yStride: 80 };
    for (const xRows of [1, 6]) {
      const shape = { ...storage, rows: 70, columns: 64 };
      expect(await productError(device, shape, xRows, extra)).toBeLessThanOrEqual(1);
    }
  });
});

it.each(OTHER_GROUPS)('multiplies $format in groups of $groupSize', async (shape) => {
  for (const xRows of [1, 6])
    expect(await productError(device, shape, xRows)).toBeLessThanOrEqual(1);
});

describe.each(COMPACT)('$format, $columns columns in compact groups of $groupSize', (shape) => {
  // Odd numbers of groups are the hard ones; the others have the smallest products.
  const isOdd = shape.columns > shape.groupSize && (shape.columns / shape.groupSize) % 2 === 1;
  it.each(isOdd || shape.columns === 96 ? [1, 5, 40] : [1])('%i rows of x', async (xRows) => {
    expect(await productError(device, shape, xRows)).toBeLessThanOrEqual(1);
  });
});

describe('limits', () => {
  it('splits weights, activations and results over a 1 MiB binding limit', async () => {
    const MIB = 2 ** 20;
    const small = await openDevice({ gpu, limits: { maxStorageBufferBindingSize: MIB } });
    // 5,500 rows of 64 f32 are 1.34 MiB of weights; 60 rows of x give 1.26 MiB of result.
    const shape = { format: 'f32', rows: 5500, columns: 64 } as const;
    expect(await productError(small, shape, 60)).toBeLessThanOrEqual(1);
    // 330 rows of 1,024 f32 are 1.29 MiB of x.
    const wide = { format: 'affine8', groupSize: 32, rows: 9, columns: 1024 } as const;
    expect(await productError(small, wide, 330, { accumulate: true })).toBeLessThanOrEqual(1);
    // Scales and lowest bits of 900 rows are 84 KiB, codes 56 KiB.
    const fine = { format: 'affine3', groupSize: 16, rows: 900, columns: 256 } as const;
    const tiny = await openDevice({ gpu, limits: { maxStorageBufferBindingSize: 2 ** 16 } });
    expect(await productError(tiny, fine, 1)).toBeLessThanOrEqual(1);
    tiny.dispose();
    small.dispose();
  });

  it('folds a grid beyond the limit of one dimension', async () => {
    const limits = { maxComputeWorkgroupsPerDimension: 3 };
    const narrow = await openDevice({ gpu, limits });
    const shape = { format: 'affine4', groupSize: 32, rows: 150, columns: 32 } as const;
    expect(await productError(narrow, shape, 11)).toBeLessThanOrEqual(1);
    expect(await productError(narrow, shape, 1)).toBeLessThanOrEqual(1);
    narrow.dispose();
  });

  it('creates nothing when repeated', async () => {
    const weights = await deviceMatrix(
      device,
      sampleMatrix({ format: 'affine4', rows: 64, columns: 64 }, 1),
    );
    using x = deviceTensor(device, sampleFloats(64 * 9, 2), 'x');
    using y = deviceTensor(device, new Float32Array(64 * 9), 'y');
    const step = (xRows: number): void => {
      const batch = new Batch(device, 'step');
      matmul(batch, { x, xRows, weights, y });
      batch.submit();
    };
    // One of each tile.
    for (const xRows of [1, 4, 8, 9]) step(xRows);
    const before = { ...device.counters };
    for (let xRows = 1; xRows <= 9; xRows++) step(xRows);
    await device.settle();
    const { buffersCreated, bindGroupsCreated, pipelinesCreated } = countersSince(
      before,
      device.counters,
    );
    expect([buffersCreated, bindGroupsCreated, pipelinesCreated]).toEqual([0, 0, 0]);
    weights.dispose();
  });

  it('reads and writes one buffer', async () => {
    const host = sampleMatrix({ format: 'f16', rows: 64, columns: 64 }, 3);
    const weights = await deviceMatrix(device, host);
    const data = sampleFloats(128, 4);
    using both = deviceTensor(device, data, 'both');
    const batch = new Batch(device, 'alias');
    matmul(batch, { x: both.slice(0, 64), xRows: 1, weights, y: both.slice(64, 64) });
    batch.submit();
    matmulCpu({ x: data, xRows: 1, weights: host, y: data, yOffset: 64 });
    expect(worstError(await both.read(), data, 64)).toBeLessThanOrEqual(1);
    weights.dispose();
  });

  it('rejects operands that are too small, and a disposed matrix', async () => {
    const weights = await deviceMatrix(
      device,
      sampleMatrix({ format: 'f32', rows: 8, columns: 8 }, 5),
    );
    using x = deviceTensor(device, new Float32Array(16), 'x');
    using y = deviceTensor(device, new Float32Array(16), 'y');
    const record = (args: Partial<MatmulArguments>) => (): void =>
      matmul(new Batch(device, 'bad'), { x, xRows: 2, weights, y, ...args });
    const invalid = expect.objectContaining({ code: 'invalid-argument' });
    expect(record({ xRows: 3 })).toThrow(invalid);
    expect(record({ firstXRow: 1 })).toThrow(invalid);
    expect(record({ yOffset: 1 })).toThrow(invalid);
    expect(record({ yStride: 7 })).toThrow(invalid);
    expect(record({ xRows: -1 })).toThrow(invalid);
    weights.dispose();
    expect(record({})).toThrow(expect.objectContaining({ code: 'disposed' }));
  });
});

describe('tuneMatmul', () => {
  it('names a kernel for each use, by measurement, and leaves no memory behind', async () => {
    const { liveBytes } = device.memory.stats();
    let now = 0;
    // A clock on which each reading is later than the last by more: the first shape is faster.
    const { vector, matrix } = await tuneMatmul(device, { now: () => (now += now + 1) });
    const lanes = device.features.has('subgroups');
    expect([vector, matrix]).toEqual(lanes ? ['lanes', 'lanes'] : ['split', 'tiled']);
    expect(device.memory.stats().liveBytes).toBe(liveBytes);
  });
});

describe.each(STORAGES)('indexedMatmul of $format $groupSize', (storage) => {
  const rowsPerExpert = 37;
  const experts = 5;
  const columns = 64;

  async function indexedError(
    on: VramDevice,
    ids: readonly number[],
    extra: { readonly xRowDivisor?: number; readonly accumulate?: boolean } = {},
    perExpert = rowsPerExpert,
  ): Promise<number> {
    const host = sampleMatrix({ ...storage, rows: experts * perExpert, columns }, 17);
    const expertIds = Uint32Array.from(ids);
    const xData = sampleFloats(ids.length * columns, 19);
    const before = sampleFloats(ids.length * perExpert, 23);
    const expected = before.slice();
    const shared = { xRows: ids.length, rowsPerExpert: perExpert, ...extra };
    indexedMatmulCpu({ ...shared, x: xData, weights: host, expertIds, y: expected });
    const weights = await deviceMatrix(on, host);
    using x = deviceTensor(on, xData, 'x');
    using idRange = deviceTensor(on, expertIds, 'ids');
    let worst = 0;
    try {
      for (const tuning of TUNINGS) {
        using y = deviceTensor(on, before, 'y');
        const batch = new Batch(on, 'indexed');
        indexedMatmul(batch, { ...shared, x, weights, expertIds: idRange, y, tuning });
        batch.submit();
        worst = Math.max(worst, worstError(await y.read(), expected, columns));
      }
      return worst;
    } finally {
      weights.dispose();
    }
  }

  it('reads ids on the device, shares rows of x, gives zeros for no expert', async () => {
    const ids = [4, 0, 2, 2, 0xffffffff, 1, 5];
    expect(await indexedError(device, ids)).toBeLessThanOrEqual(1);
    expect(await indexedError(device, ids, { xRowDivisor: 2 })).toBeLessThanOrEqual(1);
    expect(await indexedError(device, ids, { accumulate: true })).toBeLessThanOrEqual(1);
    expect(await indexedError(device, [3])).toBeLessThanOrEqual(1);
  });

  it('takes x, ids and y out of one buffer', async () => {
    const host = sampleMatrix({ ...storage, rows: experts * rowsPerExpert, columns }, 3);
    const weights = await deviceMatrix(device, host);
    const sizeBytes = 1 << 16;
    const arena = arenaResource(device.memory, { sizeBytes, kind: 'activations', label: 'all' });
    const take = (dtype: 'f32' | 'u32', count: number) =>
      createTensor(device, { dtype, shape: [count], ...kind, memory: arena });
    const kind = { kind: 'activations', label: 'part' } as const;
    const [x, ids, y] = [take('f32', columns), take('u32', 2), take('f32', 2 * rowsPerExpert)];
    const xData = sampleFloats(columns, 4);
    const expected = new Float32Array(2 * rowsPerExpert);
    const shape = { xRows: 2, xRowDivisor: 2, rowsPerExpert };
    const expertIds = Uint32Array.of(3, 1);
    x.write(xData);
    ids.write(expertIds);
    indexedMatmulCpu({ ...shape, x: xData, weights: host, expertIds, y: expected });
    for (const tuning of TUNINGS) {
      const batch = new Batch(device, 'one buffer');
      indexedMatmul(batch, { ...shape, x, weights, expertIds: ids, y, tuning });
      batch.submit();
      expect(worstError(await y.read(), expected, columns)).toBeLessThanOrEqual(1);
      await device.settle();
    }
    for (const each of [x, ids, y, weights, arena]) each.dispose();
  });

  it('takes fewer rows at once than share a row of x', async () => {
    const small = await openDevice({ gpu, limits: { maxStorageBufferBindingSize: 2 ** 14 } });
    const ids = Array.from({ length: 83 }, (_, i) => (i * 7) % 6);
    // 40 rows of 101 fit one binding; 41 to 83 share a row.
    for (const xRowDivisor of [41, 60, 83]) {
      expect(await indexedError(small, ids, { xRowDivisor }, 101)).toBeLessThanOrEqual(1);
    }
    small.dispose();
  });

  it('splits an expert between segments', async () => {
    const small = await openDevice({ gpu, limits: { maxStorageBufferBindingSize: 2 ** 14 } });
    const ids = Array.from({ length: 130 }, (_, i) => (i * 7) % 6);
    expect(await indexedError(small, ids, { xRowDivisor: 2 }, 101)).toBeLessThanOrEqual(1);
    small.dispose();
  });
});

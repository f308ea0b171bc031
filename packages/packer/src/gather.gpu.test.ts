/** Row lookup against its CPU twin: every storage, unknown ids, splits. */
import { createGpu } from '@vramkit/adapter';
import { Batch, openDevice, type VramDevice } from '@vramkit/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { gatherRows } from './gather.js';
import { gatherRowsCpu } from './kernels/gather-rows.cpu.js';
import {
  COMPACT,
  deviceMatrix,
  deviceTensor,
  OTHER_GROUPS,
  sampleMatrix,
  STORAGES,
  worstError,
} from './kernels/sample-matrix.js';
import type { MatrixShape } from './matrix-layout.js';

let gpu: GPU;
let device: VramDevice;
beforeAll(async () => {
  ({ gpu } = await createGpu());
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

async function gatherError(
  on: VramDevice,
  shape: MatrixShape,
  ids: readonly number[],
): Promise<number> {
  const host = sampleMatrix(shape, 29);
  const expected = new Float32Array(ids.length * shape.columns).fill(9);
  const weights = await deviceMatrix(on, host);
  const idData = Uint32Array.from(ids);
  const idTensor = deviceTensor(on, idData, 'ids');
  const y = deviceTensor(on, expected, 'y');
  const batch = new Batch(on, 'gather');
  gatherRows(batch, { weights, ids: idTensor, count: ids.length, y });
  batch.submit();
  gatherRowsCpu({ weights: host, ids: idData, y: expected });
  const error = worstError(await y.read(), expected, 1);
  for (const owned of [weights, idTensor, y]) owned.dispose();
  return error;
}

describe.each(STORAGES)('gatherRows of $format $groupSize', (storage) => {
  it('widens rows and gives zeros for unknown ids', async () => {
    for (const columns of [storage.groupSize ?? 4, 96]) {
      const ids = [0, 12, 3, 13, 3, 0xffffffff];
      expect(await gatherError(device, { ...storage, rows: 13, columns }, ids)).toBeLessThanOrEqual(
        1,
      );
    }
  });

  it('splits over a small binding limit', async () => {
    const small = await openDevice({ gpu, limits: { maxStorageBufferBindingSize: 2 ** 14 } });
    const ids = Array.from({ length: 80 }, (_, i) => (i * 97) % 411);
    const shape = { ...storage, rows: 400, columns: 160 };
    expect(await gatherError(small, shape, ids)).toBeLessThanOrEqual(1);
    small.dispose();
  });
});

it.each([...OTHER_GROUPS, ...COMPACT])('gathers $columns columns of $format', async (shape) => {
  expect(await gatherError(device, shape, [0, 32, 7, 33])).toBeLessThanOrEqual(1);
});

it('does nothing for no ids and rejects ranges that are too small', async () => {
  const weights = await deviceMatrix(
    device,
    sampleMatrix({ format: 'f32', rows: 3, columns: 4 }, 1),
  );
  using ids = deviceTensor(device, Uint32Array.of(1, 2), 'ids');
  using y = deviceTensor(device, new Float32Array(8).fill(7), 'y');
  const batch = new Batch(device, 'none');
  gatherRows(batch, { weights, ids, count: 0, y });
  batch.submit();
  expect(await y.read()).toEqual(new Float32Array(8).fill(7));
  expect(() => gatherRows(batch, { weights, ids, count: 3, y })).toThrow(
    expect.objectContaining({ code: 'invalid-argument' }),
  );
  weights.dispose();
});

/** Parts of tensors reach the device as they were saved, or are refused. */
import { createGpu } from '@vramkit/adapter';
import { allocate, BufferUsage, openDevice, type VramDevice } from '@vramkit/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Checkpoints, memoryStore, readBlob, readToDevice } from './index.js';
import { testBytes } from './testing.js';

let device: VramDevice;
beforeAll(async () => {
  device = await openDevice({ gpu: (await createGpu()).gpu });
});
afterAll(() => device.dispose());

const store = memoryStore();
const checkpoints = new Checkpoints(store, { shardBytes: 100_000 });
const bytes = testBytes(300_002, 7);
const tensors = [
  { name: 'other', dtype: 'U8', shape: [1000], bytes: testBytes(1000) },
  { name: 'weight', dtype: 'U8', shape: [bytes.length], bytes },
];

function buffer(sizeBytes: number) {
  const usage = BufferUsage.storage | BufferUsage.copySource | BufferUsage.copyDestination;
  return allocate(device.memory, { sizeBytes, kind: 'weights', label: 'weight', usage });
}

describe('a tensor of a checkpoint', () => {
  it('is read into a buffer, whole or in part, in chunks', async () => {
    const manifest = await checkpoints.save('a', tensors);
    const range = buffer(300_004);
    for (const [offsetBytes, lengthBytes] of [
      [0, 300_002],
      [0, 0],
      [123, 4],
      [99_999, 100_001],
      [300_001, 1],
    ] as const) {
      device.gpuDevice.queue.writeBuffer(range.buffer, 0, new Uint8Array(300_004).fill(0xee));
      const options = { offsetBytes, lengthBytes, chunkBytes: 4096 };
      expect(await readToDevice(checkpoints, manifest, 'weight', { device, range }, options)).toBe(
        lengthBytes,
      );
      const found = new Uint8Array(await device.readback.read(range)).subarray(0, lengthBytes);
      expect(Buffer.compare(found, bytes.subarray(offsetBytes, offsetBytes + lengthBytes))).toBe(0);
    }
    expect(await readToDevice(checkpoints, manifest, 'weight', { device, range })).toBe(300_002);
    device.memory.free(range);
  });

  it('is refused where it is unknown, too large, or damaged', async () => {
    const manifest = await checkpoints.open('a');
    const range = buffer(1024);
    const read = (tensor: string, options = {}) =>
      readToDevice(checkpoints, manifest, tensor, { device, range }, options);
    await expect(read('unknown')).rejects.toMatchObject({ code: 'not-found' });
    await expect(read('weight')).rejects.toMatchObject({ code: 'invalid-argument' });
    const outside = { offsetBytes: 300_000, lengthBytes: 8 };
    await expect(read('weight', outside)).rejects.toMatchObject({ code: 'invalid-argument' });
    const key = `checkpoints/a/${manifest.shards[0]?.file}`;
    const shard = await readBlob(store, key);
    await store.put(key, shard.with(500, (shard[500] ?? 0) ^ 1));
    await expect(read('other')).rejects.toMatchObject({ code: 'corrupt-data', context: { key } });
    device.memory.free(range);
  });
});

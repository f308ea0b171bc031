/** Uploads: from shared memory, several at once, and when the uploader or the device goes. */
import { createGpu } from '@vramkit/adapter';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTensor, openDevice, Uploader, writeRange, type VramDevice } from './index.js';

let gpu: GPU;
let device: VramDevice;
beforeAll(async () => {
  ({ gpu } = await createGpu());
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

const words = (on: VramDevice, count: number) =>
  createTensor(on, { dtype: 'u32', shape: [count], kind: 'activations', label: 'x' });

describe('shared memory', () => {
  const data = Uint32Array.from({ length: 900 }, (_, i) => i * 7);
  const shared = new Uint32Array(new SharedArrayBuffer(4 * 1000), 40, 900);
  shared.set(data);

  it('is written by the queue', async () => {
    using x = words(device, 900);
    writeRange(device, x, shared);
    expect(await x.read()).toEqual(data);
    x.write(shared.map(() => 1));
    x.write(shared);
    expect(await x.read()).toEqual(data);
  });

  it.each(['write-buffer', 'mapped-ring'] as const)('is uploaded by %s', async (method) => {
    using uploader = new Uploader(device, { method, chunkBytes: 1024 });
    using x = words(device, 900);
    await uploader.upload(x, shared);
    expect(await x.read()).toEqual(data);
  });
});

describe('uploads in flight at once', () => {
  it.each(['write-buffer', 'mapped-ring', 'measure'] as const)('all arrive, %s', async (method) => {
    const before = device.memory.stats().liveBytes;
    const uploader = new Uploader(device, { method, chunkBytes: 1024 });
    const tensors = Array.from({ length: 7 }, () => words(device, 600));
    const data = (i: number) => Uint32Array.from({ length: 600 }, (_, at) => 1000 * i + at);
    for (let round = 0; round < 2; round++) {
      await Promise.all(tensors.map((x, i) => uploader.upload(x, data(i + round))));
      for (const [i, x] of tensors.entries()) expect(await x.read()).toEqual(data(i + round));
    }
    uploader.dispose();
    for (const x of tensors) x.dispose();
    device.readback.trim();
    expect(device.memory.stats().liveBytes).toBeLessThanOrEqual(before);
  });

  it('do not stop one another where one fails', async () => {
    using uploader = new Uploader(device, { method: 'mapped-ring', chunkBytes: 1024 });
    using x = words(device, 256);
    const bad = { buffer: {} as unknown as GPUBuffer, offsetBytes: 0, sizeBytes: 1024 };
    const uploads = [bad, bad, x, x].map((range) => uploader.upload(range, new Uint32Array(256)));
    const ended = await Promise.allSettled(uploads);
    expect(ended.map(({ status }) => status === 'fulfilled')).toEqual([false, false, true, true]);
  });
});

describe('disposal', () => {
  it.each(['write-buffer', 'mapped-ring'] as const)('ends uploads by %s', async (method) => {
    const uploader = new Uploader(device, { method, chunkBytes: 1024 });
    using x = words(device, 2560);
    const uploads = [1, 2, 3].map(() => uploader.upload(x, new Uint32Array(2560)));
    const ended = Promise.allSettled(uploads);
    uploader.dispose();
    for (const each of await ended) {
      expect(each).toMatchObject({ status: 'rejected', reason: { code: 'disposed' } });
    }
    const late = uploader.upload(x, new Uint32Array(1));
    await expect(late).rejects.toMatchObject({ code: 'disposed' });
    uploader.dispose();
    await device.settle(); // Nothing was asked of staging that is gone.
  });

  it('after a loss of the device leaves no unhandled rejection', async () => {
    const unhandled: unknown[] = [];
    const note = (reason: unknown): void => void unhandled.push(reason);
    process.on('unhandledRejection', note);
    const doomed = await openDevice({ gpu });
    const used = new Uploader(doomed, { method: 'mapped-ring', chunkBytes: 1024 });
    const unused = new Uploader(doomed, { method: 'mapped-ring', chunkBytes: 1024 });
    const x = words(doomed, 256);
    await used.upload(x, new Uint32Array(256));
    doomed.gpuDevice.destroy();
    await doomed.lost;
    for (const uploader of [used, unused]) {
      const late = uploader.upload(x, new Uint32Array(256));
      await expect(late).rejects.toMatchObject({ code: 'device-lost' });
      uploader.dispose();
    }
    x.dispose();
    doomed.dispose();
    await new Promise((resolve) => setTimeout(resolve, 50));
    process.off('unhandledRejection', note);
    expect(unhandled).toEqual([]);
  });
});

/** Uploads: from shared memory, several at once, and when the uploader or the device goes. */
import { createGpu } from '@vramkit/adapter';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTensor, openDevice, Uploader, writeRange, type VramDevice } from './index.js';

let device: VramDevice;
beforeAll(async () => {
  const { gpu } = await createGpu();
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

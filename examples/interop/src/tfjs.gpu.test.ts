/** TensorFlow.js and vramkit on one device: tensors go over and come back by their buffers. */
import { createGpu } from '@vramkit/adapter';
import { adoptDevice, Batch, createTensor, openDevice, type VramDevice } from '@vramkit/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { whyNoRuntimes } from './runtimes.js';
import { scale } from './scale.js';
import { adoptFromTfjs, lendToTfjs, openTfjs, type Tf } from './tfjs.js';

const reason = whyNoRuntimes();
if (reason !== undefined) process.stderr.write(`interop with TensorFlow.js skipped: ${reason}\n`);

describe.skipIf(reason !== undefined)('TensorFlow.js on our device', () => {
  // Held to the end: buffers of the other runtime are collected after the device is disposed.
  let gpu: GPU;
  let owner: VramDevice;
  let device: VramDevice;
  let tf: Tf;
  beforeAll(async () => {
    ({ gpu } = await createGpu());
    owner = await openDevice({ gpu });
    device = adoptDevice(owner.gpuDevice);
    tf = await openTfjs(device);
  });
  afterAll(() => {
    tf.removeBackend('webgpu');
    device.dispose();
    owner.dispose();
    expect(gpu).toBeDefined();
  });

  it('multiplies a tensor of ours, and a kernel of ours reads the product', async () => {
    // Whatever reaches the host has to be mapped, or read through a buffer that can be.
    let mapped = 0;
    const { gpuDevice } = device;
    const create = gpuDevice.createBuffer.bind(gpuDevice);
    gpuDevice.createBuffer = (descriptor) => {
      if ((descriptor.usage & 0x1) !== 0) mapped += 1;
      return create(descriptor);
    };
    const options = { dtype: 'f32', kind: 'activations' } as const;
    using x = createTensor(device, { ...options, shape: [3, 4], label: 'x' });
    using y = createTensor(device, { ...options, shape: [3, 2], label: 'y' });
    const values = Float32Array.from({ length: 12 }, (_, i) => i - 5);
    const weights = [1, -1, 2, 0, -1, 3, 0.5, 1];
    x.write(values);

    const lent = lendToTfjs(tf, x);
    const w = tf.tensor(weights, [4, 2], 'float32');
    const product = tf.relu(tf.matMul(lent, w));
    adoptFromTfjs(device, product, (tensor) => {
      const batch = new Batch(device, 'scale');
      scale(batch, tensor, y, 10);
      batch.submit();
    });
    expect(mapped).toBe(0);

    const expected = [0, 1, 2].flatMap((row) =>
      [0, 1].map((column) => {
        let sum = 0;
        for (let k = 0; k < 4; k += 1) {
          sum += (values[row * 4 + k] ?? 0) * (weights[k * 2 + column] ?? 0);
        }
        return 10 * Math.max(0, sum);
      }),
    );
    expect([...(await y.readFloats())]).toEqual(expected);

    // It is the same memory: what we write later is what TensorFlow.js reads.
    x.write(new Float32Array(12).fill(2));
    expect([...(await tf.relu(lent).data())]).toEqual(new Array(12).fill(2));
    for (const tensor of [lent, w, product]) tensor.dispose();
    await device.settle();
  });

  it('refuses what it could not bind', () => {
    const options = { dtype: 'f32', kind: 'activations', label: 'x' } as const;
    using x = createTensor(device, { ...options, shape: [128, 2] });
    using h = createTensor(device, { ...options, dtype: 'f16', shape: [2] });
    expect(() => lendToTfjs(tf, x.slice(64, 64))).toThrow('whole buffers');
    expect(() => lendToTfjs(tf, h)).toThrow('f32');
  });
});

/** TypeGPU and vramkit on one device: one buffer, two names. */
import { createGpu } from '@vramkit/adapter';
import { adoptDevice, Batch, createTensor, openDevice, type VramDevice } from '@vramkit/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { whyNoRuntimes } from './runtimes.js';
import { scale } from './scale.js';
import { adoptFromTypeGpu, lendToTypeGpu, openTypeGpu, type TypeGpu } from './typegpu.js';

const COUNT = 65;
const reason = whyNoRuntimes();
if (reason !== undefined) process.stderr.write(`interop with TypeGPU skipped: ${reason}\n`);

describe.skipIf(reason !== undefined)('TypeGPU on our device', () => {
  // Held to the end: buffers of the other runtime are collected after the device is disposed.
  let gpu: GPU;
  let owner: VramDevice;
  let device: VramDevice;
  let typeGpu: TypeGpu;
  beforeAll(async () => {
    ({ gpu } = await createGpu());
    owner = await openDevice({ gpu });
    device = adoptDevice(owner.gpuDevice);
    typeGpu = await openTypeGpu(device);
  });
  afterAll(() => {
    typeGpu.root.destroy();
    device.dispose();
    owner.dispose();
    expect(gpu).toBeDefined();
  });

  const values = Array.from({ length: COUNT }, (_, i) => i / 4 - 3);
  const newTensor = (label: string) =>
    createTensor(device, { dtype: 'f32', kind: 'activations', shape: [COUNT], label });

  it('a kernel of ours reads and writes its buffers', async () => {
    const { root, d } = typeGpu;
    const input = root.createBuffer(d.arrayOf(d.f32, COUNT), values).$usage('storage');
    const output = root.createBuffer(d.arrayOf(d.f32, COUNT)).$usage('storage');
    const x = adoptFromTypeGpu(device, typeGpu, input, [COUNT]);
    const y = adoptFromTypeGpu(device, typeGpu, output, [COUNT]);
    expect(x.buffer).toBe(root.unwrap(input));
    const batch = new Batch(device, 'scale');
    scale(batch, x, y, 8);
    batch.submit();
    expect(await output.read()).toEqual(values.map((value) => 8 * value));
    x.dispose();
    expect(await input.read(), 'disposal leaves a borrowed buffer alone').toEqual(values);
    input.destroy();
    output.destroy();
    await device.settle();
  });

  it('a kernel of its reads and writes tensors of ours', async () => {
    const { root, tgpu, d } = typeGpu;
    using x = newTensor('x');
    using y = newTensor('y');
    x.write(Float32Array.from(values));
    const floats = d.arrayOf(d.f32, COUNT);
    const layout = tgpu.bindGroupLayout({
      source: { storage: floats },
      result: { storage: floats, access: 'mutable' },
    });
    const square = tgpu
      .computeFn({ in: { id: d.builtin.globalInvocationId }, workgroupSize: [64] })(
        `{
          let i = in.id.x;
          if (i < ${COUNT}u) { layout.$.result[i] = layout.$.source[i] * layout.$.source[i]; }
        }`,
      )
      .$uses({ layout });
    const group = root.createBindGroup(layout, {
      source: lendToTypeGpu(typeGpu, x),
      result: lendToTypeGpu(typeGpu, y),
    });
    root.createComputePipeline({ compute: square }).with(group).dispatchWorkgroups(2);
    expect([...(await y.readFloats())]).toEqual(values.map((value) => value * value));
    expect(() => lendToTypeGpu(typeGpu, x.slice(64, 1))).toThrow('whole buffers');
    await device.settle();
  });
});

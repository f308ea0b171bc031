/** The adapter that VRAMKIT_ADAPTER names opens and computes, also in a worker thread. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createGpu } from './index.js';
import type { OpenedGpu } from './index.js';

/** The numbers of WebGPU's flags; Dawn for Node does not define the global namespaces. */
const usages = { storage: 0x80 | 0x04 | 0x08, read: 0x01 | 0x08 };
const driverPattern = { gpu: /./, lavapipe: /llvmpipe/i, swiftshader: /swiftshader/i };

describe(`adapter '${process.env['VRAMKIT_ADAPTER']}'`, () => {
  let opened: OpenedGpu;
  let device: GPUDevice;

  beforeAll(async () => {
    opened = await createGpu();
    const adapter = await opened.gpu.requestAdapter();
    if (adapter === null) throw new Error('createGpu() returned a GPU without an adapter');
    device = await adapter.requestDevice();
  });
  afterAll(() => device.destroy());

  it('is the one that VRAMKIT_ADAPTER names', () => {
    expect(opened.adapter).toBe(process.env['VRAMKIT_ADAPTER']);
    expect(opened.driver).toMatch(driverPattern[opened.adapter]);
  });

  it('runs a compute shader and reads its result back', async () => {
    const count = 1000;
    const code = /* wgsl */ `
      @group(0) @binding(0) var<storage, read_write> data: array<u32>;
      @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
        if (id.x < arrayLength(&data)) { data[id.x] = data[id.x] * 3u + id.x; }
      }`;
    const pipeline = device.createComputePipeline({
      layout: 'auto',
      compute: { module: device.createShaderModule({ code }) },
    });
    const data = device.createBuffer({ size: count * 4, usage: usages.storage });
    const result = device.createBuffer({ size: count * 4, usage: usages.read });
    device.queue.writeBuffer(
      data,
      0,
      Uint32Array.from({ length: count }, (_, i) => i + 7),
    );
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    const entries = [{ binding: 0, resource: { buffer: data } }];
    pass.setBindGroup(
      0,
      device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }),
    );
    pass.dispatchWorkgroups(Math.ceil(count / 64));
    pass.end();
    encoder.copyBufferToBuffer(data, 0, result, 0, count * 4);
    device.queue.submit([encoder.finish()]);
    await result.mapAsync(1 /* GPUMapMode.READ */);
    const got = [...new Uint32Array(result.getMappedRange())];
    expect(got).toEqual(Array.from({ length: count }, (_, i) => (i + 7) * 3 + i));
  });

  it('opens a second time in the same process', async () => {
    const again = await createGpu({ adapter: opened.adapter });
    expect(await again.gpu.requestAdapter()).not.toBeNull();
    expect(again.driver).toBe(opened.driver);
  });

  it('opens in a worker thread, where process.env is a copy', async () => {
    // A fresh process, because this one's real environment already names the driver.
    const open = `import(${JSON.stringify(new URL('./index.ts', import.meta.url).href)})
      .then(({ createGpu }) => createGpu())
      .then(({ adapter, driver }) => console.log(JSON.stringify({ adapter, driver })))`;
    const inWorker = `import('tsx/esm/api').then(({ register }) => (register(), ${open}));`;
    const code = `const { Worker } = require('node:worker_threads');
      new Worker(${JSON.stringify(inWorker)}, { eval: true });`;
    const env = { ...process.env, VK_DRIVER_FILES: '', VK_ICD_FILENAMES: '' };
    const options = ['--conditions=@vramkit/source', '-e', code];
    const { stdout } = await promisify(execFile)(process.execPath, options, { env });
    expect(JSON.parse(stdout)).toEqual({ adapter: opened.adapter, driver: opened.driver });
  });
});

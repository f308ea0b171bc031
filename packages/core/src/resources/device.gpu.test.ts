/** The resource stack on real buffers, and what the driver's verdicts become. */
import { createGpu } from '@vramkit/adapter';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isVramError, type VramError } from '../errors.js';
import { allocate, type Allocation } from '../resource.js';
import {
  describeResource,
  faultyResource,
  readWords,
  writeWords,
  resourceStacks,
} from '../testing.js';
import { arenaResource } from './arena.js';
import { deviceResource } from './device.js';
import { limitedResource } from './limited.js';

const MAP_READ = 0x1;
const STORAGE = 0x80;

let gpu: GPU;
let gpuDevice: GPUDevice;
beforeAll(async () => {
  ({ gpu } = await createGpu());
  gpuDevice = await openOne();
});
afterAll(() => gpuDevice.destroy());

async function openOne(): Promise<GPUDevice> {
  const adapter = await gpu.requestAdapter();
  if (adapter === null) throw new Error('the adapter is gone');
  return adapter.requestDevice();
}

const request = (sizeBytes: number, label = 'x') => ({ sizeBytes, kind: 'kv', label }) as const;

for (const stack of resourceStacks('device')) {
  const { name, capacityBytes, depth } = stack;
  // Triples differ in bookkeeping alone, which the same suite covers without a device.
  if (depth > 2) continue;
  describeResource(
    name,
    () => {
      const bottom = deviceResource(gpuDevice);
      const { resource, all } = stack.build(bottom);
      const upstream = all.at(-2);
      const close = (): Promise<void> => bottom.settled();
      const subject = { resource, gpuDevice, close };
      return upstream === undefined ? subject : { ...subject, upstream };
    },
    { describe, it, expect },
    { capacityBytes, steps: 100, seeds: [1] },
  );
}

describe('deviceResource', () => {
  it('creates one buffer per allocation, destroys it on free, and says so', async () => {
    const seen: string[] = [];
    const resource = deviceResource(gpuDevice, {
      onBufferCreated: ({ label }) => seen.push(`created ${label}`),
      onBufferDestroyed: ({ label }) => seen.push(`destroyed ${label}`),
    });
    const a = allocate(resource, request(5, 'a'));
    const b = allocate(resource, request(8, 'b'));
    expect([a.buffer.size, a.buffer.label, b.buffer.size]).toEqual([8, 'a', 8]);
    expect(resource.stats()).toMatchObject({ liveBytes: 13, paddingBytes: 3, reservedBytes: 16 });
    resource.free(a);
    resource.free(b);
    expect(seen).toEqual(['created a', 'created b', 'destroyed a', 'destroyed b']);
    expect(resource.stats()).toMatchObject({ reservedBytes: 0, peakReservedBytes: 16 });
    resource.dispose();
    await resource.settled();
  });

  it('rejects what exceeds the largest buffer, before the driver', () => {
    const { maxBufferSize } = gpuDevice.limits;
    const resource = deviceResource(gpuDevice, { maxBufferBytes: 1024 });
    resource.free(allocate(resource, request(1024)));
    expect(() => resource.tryAllocate(request(1025))).toThrow(/largest buffer is 1024 B; split it/);
    expect(() => deviceResource(gpuDevice, { maxBufferBytes: maxBufferSize + 1 })).toThrow(
      /maxBufferBytes/,
    );
    resource.dispose();
  });

  it('rejects the next settled() with what the driver said, once', async () => {
    const resource = deviceResource(gpuDevice);
    const bad = allocate(resource, { ...request(16, 'bad usage'), usage: MAP_READ | STORAGE });
    const good = allocate(resource, request(16));
    const error = await resource.settled().then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(isVramError(error, 'validation') && error.context).toEqual({
      kind: 'kv',
      label: 'bad usage',
      neededBytes: 16,
    });
    await resource.settled();
    resource.free(bad);
    resource.free(good);
    resource.dispose();
  });

  it('hands errors to onError instead, where it is given', async () => {
    const errors: VramError[] = [];
    const resource = deviceResource(gpuDevice, { onError: (error) => errors.push(error) });
    const usage = MAP_READ | STORAGE;
    const bad = allocate(resource, { ...request(16, 'bad usage'), usage });
    await resource.settled();
    expect(errors.map(({ code, message }) => [code, /'bad usage' \(kv\)/.test(message)])).toEqual([
      ['validation', true],
    ]);
    resource.free(bad);
    resource.dispose();
  });

  it('frees and disposes after the device is lost, and settles', async () => {
    const doomed = await openOne();
    const errors: VramError[] = [];
    const resource = deviceResource(doomed, { onError: (error) => errors.push(error) });
    const before = allocate(resource, request(16));
    doomed.destroy();
    await doomed.lost;
    const after = resource.tryAllocate(request(16));
    await resource.settled();
    // A lost device passes no verdict on a buffer: its owner announces the loss.
    expect(errors).toEqual([]);
    resource.free(before);
    if (after !== undefined) resource.free(after);
    resource.dispose();
  });

  it('really destroys: the driver rejects a freed buffer', async () => {
    const resource = deviceResource(gpuDevice);
    const range = allocate(resource, request(16));
    resource.free(range);
    gpuDevice.pushErrorScope('validation');
    const encoder = gpuDevice.createCommandEncoder();
    encoder.clearBuffer(range.buffer);
    gpuDevice.queue.submit([encoder.finish()]);
    expect(await gpuDevice.popErrorScope()).not.toBeNull();
    resource.dispose();
  });

  it('leaves the device and foreign buffers alone', async () => {
    const foreign = gpuDevice.createBuffer({ size: 16, usage: STORAGE | 0x4 | 0x8 });
    const resource = deviceResource(gpuDevice);
    const own = allocate(resource, request(16));
    const forged: Allocation = { ...own, buffer: foreign };
    expect(() => resource.free(forged)).toThrow(/not live/);
    resource.free(own);
    resource.dispose();
    writeWords(gpuDevice, forged, new Uint32Array([1, 2, 3, 4]));
    expect([...(await readWords(gpuDevice, forged, 4))]).toEqual([1, 2, 3, 4]);
    foreign.destroy();
  });

  it('goes on after a hard limit refused, without a driver error', async () => {
    const errors: VramError[] = [];
    const bottom = deviceResource(gpuDevice, { onError: (error) => errors.push(error) });
    const limited = limitedResource(bottom, { limitBytes: 1023 });
    expect(() => allocate(limited, request(1024, 'block'))).toThrow(
      /needed 1024 B of kind 'kv' for 'block', 1023 B free of 1023 B, short of 1 B/,
    );
    const range = allocate(limited, request(1020));
    writeWords(gpuDevice, range, new Uint32Array([42]));
    expect([...(await readWords(gpuDevice, range, 1))]).toEqual([42]);
    await bottom.settled();
    expect(errors).toEqual([]);
    limited.free(range);
  });

  it('leaves nothing behind where any allocation of a sequence fails', () => {
    for (let failing = 0; failing < 4; failing += 1) {
      const bottom = deviceResource(gpuDevice);
      const faulty = faultyResource(bottom, { failAt: [failing], mode: 'throw' });
      const limited = limitedResource(faulty, { limitBytes: 4096 });
      const ranges: Allocation[] = [];
      const takeAll = (): void => {
        for (let i = 0; i < 4; i += 1) ranges.push(allocate(limited, request(1024, `part ${i}`)));
      };
      expect(takeAll).toThrow(`allocation ${failing} fails as planned`);
      expect(limited.stats().reservedBytes).toBe(failing * 1024);
      for (const range of ranges) limited.free(range);
      limited.dispose();
      bottom.dispose();
    }
  });
});

describe('one buffer in one dispatch', () => {
  const shader = /* wgsl */ `
@group(0) @binding(0) var<storage, ACCESS> source: array<u32>;
@group(0) @binding(1) var<storage, read_write> result: array<u32>;
@compute @workgroup_size(1) fn main() { result[0] = source[0] + 1u; }`;

  /** Copies one range to another; gives the driver's complaint, if it has one. */
  async function run(access: string, source: Allocation, result: Allocation): Promise<boolean> {
    gpuDevice.pushErrorScope('validation');
    const module = gpuDevice.createShaderModule({ code: shader.replace('ACCESS', access) });
    const pipeline = gpuDevice.createComputePipeline({ layout: 'auto', compute: { module } });
    const entries = [source, result].map(({ buffer, offsetBytes: offset }, binding) => ({
      binding,
      resource: { buffer, offset, size: 4 },
    }));
    const layout = pipeline.getBindGroupLayout(0);
    const encoder = gpuDevice.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, gpuDevice.createBindGroup({ layout, entries }));
    pass.dispatchWorkgroups(1);
    pass.end();
    gpuDevice.queue.submit([encoder.finish()]);
    return (await gpuDevice.popErrorScope()) === null;
  }

  it('may be bound read-write twice, but not read-only and read-write', async () => {
    const bottom = deviceResource(gpuDevice);
    const options = { sizeBytes: 1024, kind: 'staging', label: 'arena' } as const;
    const arena = arenaResource(bottom, options);
    const [source, result] = [allocate(arena, request(4)), allocate(arena, request(4))];
    writeWords(gpuDevice, source, new Uint32Array([6]));
    expect(await run('read_write', source, result)).toBe(true);
    expect([...(await readWords(gpuDevice, result, 1))]).toEqual([7]);
    expect(await run('read', source, result)).toBe(false);
    arena.free(source);
    arena.free(result);
    arena.dispose();
    bottom.dispose();
  });
});

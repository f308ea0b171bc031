/** Device, kernels, batches, transfers and tensors on a real driver. */
import { createGpu } from '@vramkit/adapter';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import {
  Batch,
  countersSince,
  createTensor,
  defineKernel,
  openDevice,
  tensorFromBuffer,
  adoptDevice,
  Uploader,
  type Tensor,
  type VramDevice,
} from './index.js';

const affine = defineKernel({
  name: 'affine',
  bindings: {
    x: { access: 'read', type: 'array<f32>' },
    y: { access: 'read-write', type: 'array<f32>' },
  },
  uniforms: { count: 'u32', shift: 'i32', factor: 'f32' },
  source: (params: { workgroupSize: number }) => `
@compute @workgroup_size(${params.workgroupSize})
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * ${params.workgroupSize}u;
  if (i < uniforms.count) { y[i] = uniforms.factor * x[i] + f32(uniforms.shift); }
}`,
});

let gpu: GPU;
let device: VramDevice;
beforeAll(async () => {
  ({ gpu } = await createGpu());
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

const f32 = (count: number, label: string) =>
  createTensor(device, { dtype: 'f32', shape: [count], kind: 'activations', label });

describe('kernels and batches', () => {
  it('runs dispatches in order, each with its uniforms, also across uniform buffers', async () => {
    using x = f32(3, 'x');
    using y = f32(3, 'y');
    x.write(new Float32Array([1, 2, 3]));
    const batch = new Batch(device, 'test');
    const steps = 2500; // More than the 1,024 slots of the uniform buffer.
    for (let step = 0; step < steps; step++) {
      const bindings = step % 2 === 0 ? { x, y } : { x: y, y: x };
      batch.dispatch(affine, {
        params: { workgroupSize: 32 },
        bindings,
        uniforms: { count: 3, shift: step % 2 === 0 ? -1 : 2, factor: 1 },
        workgroups: 1,
      });
    }
    batch.submit();
    expect(await x.read()).toEqual(new Float32Array([1, 2, 3].map((v) => v + steps / 2)));
  });

  it('folds a grid larger than the limit', async () => {
    const narrow = await openDevice({ gpu, limits: { maxComputeWorkgroupsPerDimension: 7 } });
    const count = 40 * 32 - 5;
    const layout = { dtype: 'f32', shape: [count], kind: 'activations' } as const;
    const x = createTensor(narrow, { ...layout, label: 'x' });
    const y = createTensor(narrow, { ...layout, label: 'y' });
    x.write(Float32Array.from({ length: count }, (_, i) => i));
    const batch = new Batch(narrow, 'fold');
    batch.dispatch(affine, {
      params: { workgroupSize: 32 },
      bindings: { x, y },
      uniforms: { count, shift: 1, factor: 2 },
      workgroups: 40,
    });
    batch.submit();
    expect(await y.read()).toEqual(Float32Array.from({ length: count }, (_, i) => 2 * i + 1));
    x.dispose();
    y.dispose();
    narrow.dispose();
  });

  it('lets tensors of one buffer be read and written in one dispatch', async () => {
    using both = f32(128, 'both');
    both.write(Float32Array.from({ length: 128 }, (_, i) => i));
    const batch = new Batch(device, 'alias');
    batch.dispatch(affine, {
      params: { workgroupSize: 64 },
      bindings: { x: both.slice(0, 64), y: both.slice(64, 64) },
      uniforms: { count: 64, shift: 0, factor: -1 },
      workgroups: 1,
    });
    batch.submit();
    const expected = Float32Array.from({ length: 128 }, (_, i) => (i < 64 ? i : 64 - i));
    expect((await both.readFloats()).map((v) => v + 0)).toEqual(expected);
  });

  it('creates nothing in a repeated step, reads included', async () => {
    using x = f32(1000, 'x');
    using y = f32(1000, 'y');
    const step = async (shift: number): Promise<void> => {
      const batch = new Batch(device, 'step');
      batch.dispatch(affine, {
        params: { workgroupSize: 64 },
        bindings: { x, y },
        uniforms: { count: 1000, shift, factor: 1 },
        workgroups: 16,
      });
      batch.submit();
      expect((await y.readFloats())[0]).toBe(shift);
    };
    await step(1);
    const before = { ...device.counters };
    for (let shift = 2; shift < 6; shift++) await step(shift);
    const { buffersCreated, bindGroupsCreated, pipelinesCreated, dispatches } = countersSince(
      before,
      device.counters,
    );
    expect([buffersCreated, bindGroupsCreated, pipelinesCreated]).toEqual([0, 0, 0]);
    expect(dispatches).toBe(4);
  });

  it('names kernel and driver message for a shader that does not compile', async () => {
    const broken = defineKernel({
      name: 'broken',
      bindings: { y: { access: 'read-write', type: 'array<f32>' } },
      uniforms: {},
      source: () => 'fn main() { nonsense }',
    });
    using y = f32(4, 'y');
    const batch = new Batch(device, 'broken');
    batch.dispatch(broken, { params: {}, bindings: { y }, uniforms: {}, workgroups: 1 });
    batch.submit();
    await expect(device.settle()).rejects.toMatchObject({ code: 'validation' });
    await y.read().catch(() => undefined);
    await device.settle().catch(() => undefined);
    await device.settle();
  });

  it('rejects a binding over the limit before the driver sees it', async () => {
    const small = await openDevice({ gpu, limits: { maxStorageBufferBindingSize: 1024 } });
    const layout = { dtype: 'f32', shape: [257], kind: 'activations', label: 'x' } as const;
    const x = createTensor(small, layout);
    const y = createTensor(small, layout);
    expect(() =>
      new Batch(small, 'limit').dispatch(affine, {
        params: { workgroupSize: 64 },
        bindings: { x, y },
        uniforms: { count: 1, shift: 0, factor: 1 },
        workgroups: 1,
      }),
    ).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
    x.dispose();
    y.dispose();
    small.dispose();
  });
});

describe('tensors and transfers', () => {
  it.each(['f32', 'f16', 'bf16', 'u32', 'i32', 'u8', 'i8'] as const)(
    'writes and reads %s of an odd count',
    async (dtype) => {
      using tensor = createTensor(device, { dtype, shape: [7], kind: 'activations', label: dtype });
      const values = [0, 1, 2, 3, 64, 100, 127];
      const array = { u32: Uint32Array, i32: Int32Array, u8: Uint8Array, i8: Int8Array };
      const data =
        dtype === 'u32' || dtype === 'i32' || dtype === 'u8' || dtype === 'i8'
          ? new array[dtype](values)
          : new Float32Array(values);
      tensor.write(data);
      expect(await tensor.read()).toEqual(data);
    },
  );

  it.each([1, 2, 3, 4, 255, 256, 257, 1025])(
    'casts %i elements between float types',
    async (count) => {
      const layout = { shape: [count], kind: 'activations' } as const;
      using a = createTensor(device, { ...layout, dtype: 'f32', label: 'a' });
      using b = createTensor(device, { ...layout, dtype: 'f16', label: 'b' });
      using c = createTensor(device, { ...layout, dtype: 'bf16', label: 'c' });
      using d = createTensor(device, { ...layout, dtype: 'f32', label: 'd' });
      const values = Float32Array.from({ length: count }, (_, i) => (i - 3) * 0.25);
      a.write(values);
      c.write(values.map((value) => Math.round(value)));
      const batch = new Batch(device, 'cast');
      a.copyTo(b, batch);
      c.copyTo(d, batch);
      batch.submit();
      expect(await b.read()).toEqual(values);
      expect(await d.read()).toEqual(await c.read());
      expect(() => a.copyTo(c, batch)).toThrow(expect.objectContaining({ code: 'unsupported' }));
    },
  );

  it.each(['write-buffer', 'mapped-ring', 'measure'] as const)('uploads by %s', async (method) => {
    using uploader = new Uploader(device, { method, chunkBytes: 64 * 1024 });
    const count = 64 * 1024 * 2 + 5;
    using x = f32(count, 'x');
    const data = Float32Array.from({ length: count }, (_, i) => i ^ 0x5555);
    const seen: number[] = [];
    await uploader.upload(x, data, 0, { onProgress: (done) => seen.push(done) });
    expect(await x.read()).toEqual(data);
    expect(seen.at(-1)).toBe(count * 4);
    if (method === 'measure') {
      expect(uploader.method).toMatch(/write-buffer|mapped-ring/);
      expect(uploader.measuredGbps['write-buffer']).toBeGreaterThan(0);
    }
  });

  it('stops an upload at the next chunk when aborted', async () => {
    using uploader = new Uploader(device, { method: 'write-buffer', chunkBytes: 1024 });
    using x = f32(1024, 'x');
    const controller = new AbortController();
    const upload = uploader.upload(x, new Float32Array(1024), 0, {
      signal: controller.signal,
      onProgress: () => controller.abort(),
    });
    await expect(upload).rejects.toMatchObject({ code: 'aborted' });
  });

  it('borrows a foreign buffer and never destroys it', async () => {
    const buffer = device.gpuDevice.createBuffer({ size: 64, usage: 0x80 | 0x4 | 0x8 });
    const adopted = adoptDevice(device.gpuDevice);
    const tensor = tensorFromBuffer(adopted, buffer, { dtype: 'f32', shape: [4], offsetBytes: 16 });
    tensor.write(new Float32Array([1, 2, 3, 4]));
    expect(await tensor.read()).toEqual(new Float32Array([1, 2, 3, 4]));
    tensor.dispose();
    adopted.dispose();
    device.gpuDevice.queue.writeBuffer(buffer, 0, new Float32Array(4));
    await device.settle();
    buffer.destroy();
    expect(() => tensorFromBuffer(device, buffer, { dtype: 'f32', shape: [17] })).toThrow();
  });
});

describe('budget, loss and disposal', () => {
  it('fails one byte short of what is needed, names the kind, and goes on', async () => {
    const probe = await openDevice({ gpu });
    const fixed = probe.memory.stats().reservedBytes;
    probe.dispose();
    const tight = await openDevice({ gpu, budgetBytes: fixed + 4095 });
    const layout = { dtype: 'f32', kind: 'kv', label: 'k' } as const;
    expect(() => createTensor(tight, { ...layout, shape: [1024] })).toThrow(
      expect.objectContaining({
        code: 'out-of-memory',
        context: expect.objectContaining({ kind: 'kv', shortfallBytes: 1 }),
      }),
    );
    const fits = createTensor(tight, { ...layout, shape: [1023] });
    fits.dispose();
    tight.dispose();
  });

  it('rejects pending and later work with device-lost, then a new device works', async () => {
    const doomed = await openDevice({ gpu });
    const x = createTensor(doomed, { dtype: 'f32', shape: [1 << 20], kind: 'kv', label: 'x' });
    const pending = x.read();
    doomed.gpuDevice.destroy();
    await expect(pending).rejects.toMatchObject({ code: 'device-lost' });
    expect((await doomed.lost).code).toBe('device-lost');
    await expect(doomed.settle()).rejects.toMatchObject({ code: 'device-lost' });
    expect(() => new Batch(doomed, 'late')).toThrow(
      expect.objectContaining({ code: 'device-lost' }),
    );
    x.dispose();
    expect(doomed.memory.stats().liveBytesByKind.kv).toBe(0);
    doomed.dispose();
    const fresh = await openDevice({ gpu });
    using y = createTensor(fresh, { dtype: 'u32', shape: [1], kind: 'kv', label: 'y' });
    y.write(new Uint32Array([7]));
    expect(await y.read()).toEqual(new Uint32Array([7]));
    y.dispose();
    fresh.dispose();
  });

  it('can be disposed while a read is in flight; the read rejects', async () => {
    const own = await openDevice({ gpu });
    const x = createTensor(own, { dtype: 'f32', shape: [4096], kind: 'kv', label: 'x' });
    const pending = x.read();
    x.dispose();
    own.dispose();
    await expect(pending).rejects.toThrow();
  });

  it('refuses disposal while something is allocated', async () => {
    const own = await openDevice({ gpu });
    const x = createTensor(own, { dtype: 'f32', shape: [4], kind: 'kv', label: 'left over' });
    expect(() => own.dispose()).toThrow(/the device was .* 1 live allocations \(16 B\): left over/);
    x.dispose();
    x.dispose();
    expect(() => x.buffer).toThrow(expect.objectContaining({ code: 'disposed' }));
    own.dispose();
    own.dispose();
    expect(() => own.assertUsable()).toThrow(expect.objectContaining({ code: 'disposed' }));
  });

  it('releases all at the end of a block, and the error that ended it is seen', async () => {
    const kept: Tensor[] = [];
    const work = async (): Promise<void> => {
      using own = await openDevice({ gpu, budgetBytes: 2 ** 20 });
      const layout = { dtype: 'f32', kind: 'kv', label: 'large' } as const;
      kept.push(createTensor(own, { ...layout, shape: [4] }));
      createTensor(own, { ...layout, shape: [2 ** 20] });
    };
    await expect(work()).rejects.toMatchObject({ code: 'out-of-memory' });
    for (const tensor of kept) tensor.dispose();
  });

  it('adopts devices alone, not promises of one', () => {
    // Foreign boundary: callers without types give what ONNX Runtime's `env.webgpu.device` is.
    const wrong = [Promise.resolve(device.gpuDevice), device, undefined] as never[];
    for (const each of wrong) {
      expect(() => adoptDevice(each)).toThrow(/invalid-argument: this is no GPUDevice/);
    }
  });

  it('ends a read of an adopted device as disposed, and leaves no listener behind', async () => {
    const adopted = adoptDevice(device.gpuDevice);
    const x = createTensor(adopted, { dtype: 'f32', shape: [4096], kind: 'kv', label: 'x' });
    const pending = x.read();
    x.dispose();
    adopted.dispose();
    await expect(pending).rejects.toMatchObject({ code: 'disposed' });
    const listen = vi.spyOn(device.gpuDevice, 'addEventListener');
    expect(() => adoptDevice(device.gpuDevice, { budgetBytes: 1000 })).toThrow(/out-of-memory/);
    expect(listen).not.toHaveBeenCalled();
    listen.mockRestore();
  });

  it('gives idle staging memory back where something else needs it', async () => {
    const own = await openDevice({ gpu, budgetBytes: 16 * 2 ** 20 });
    const layout = { dtype: 'f32', kind: 'kv', label: 'x' } as const;
    const x = createTensor(own, { ...layout, shape: [2 ** 20] });
    await x.read();
    x.dispose();
    createTensor(own, { ...layout, shape: [15 * 2 ** 18] }).dispose();
    own.dispose();
  });
});

describe('tensors of the wrong kind', () => {
  it('refuses a type that a kernel does not read, and a tensor of another device', async () => {
    using x = createTensor(device, {
      dtype: 'f16',
      shape: [4],
      kind: 'activations',
      label: 'half',
    });
    using y = f32(4, 'y');
    const batch = new Batch(device, 'test');
    const request = {
      params: { workgroupSize: 32 },
      uniforms: { count: 4, shift: 0, factor: 1 },
      workgroups: 1,
    };
    expect(() => batch.dispatch(affine, { ...request, bindings: { x, y } })).toThrow(
      /binding 'x' of 'affine' is array<f32>, tensor 'half' is f16/,
    );
    using other = await openDevice({ gpu });
    using z = createTensor(other, { dtype: 'f32', shape: [4], kind: 'kv', label: 'z' });
    const foreign = /tensor 'z' is of another device/;
    expect(() => batch.dispatch(affine, { ...request, bindings: { x: y, y: z } })).toThrow(foreign);
    expect(() => batch.copy(y, z)).toThrow(foreign);
    expect(() => batch.clear(z)).toThrow(foreign);
  });
});

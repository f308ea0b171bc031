/** What a dispatch refuses, and the bind-group cache, which keeps nothing of buffers gone. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { createGpu } from '@vramkit/adapter';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  arenaResource,
  Batch,
  createTensor,
  defineKernel,
  openDevice,
  tensorFromBuffer,
  type Tensor,
  type VramDevice,
} from './index.js';

const copy = defineKernel({
  name: 'copy',
  bindings: {
    x: { access: 'read', type: 'array<f32>' },
    y: { access: 'read-write', type: 'array<f32>' },
  },
  uniforms: { count: 'u32' },
  source: () => `
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < uniforms.count) { y[id.x] = x[id.x]; }
}`,
});

let device: VramDevice;
beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

const f32 = (label: string) =>
  createTensor(device, { dtype: 'f32', shape: [4], kind: 'activations', label });

function run(x: Tensor, y: Tensor): void {
  const batch = new Batch(device, 'copy');
  batch.dispatch(copy, { params: {}, bindings: { x, y }, uniforms: { count: 4 }, workgroups: 1 });
  batch.submit();
}

it('refuses ranges that overlap in a buffer that the kernel writes', async () => {
  const add = defineKernel({
    name: 'add',
    bindings: {
      x: { access: 'read', type: 'array<f32>' },
      y: { access: 'read', type: 'array<f32>' },
      sum: { access: 'read-write', type: 'array<f32>' },
    },
    uniforms: { count: 'u32' },
    source: () => `
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < uniforms.count) { sum[id.x] = x[id.x] + y[id.x]; }
}`,
  });
  const options = { sizeBytes: 1024, kind: 'activations', label: 'arena' } as const;
  const arena = arenaResource(device.memory, options);
  const inside = () =>
    createTensor(device, { ...options, dtype: 'f32', shape: [4], memory: arena });
  const [x, y, sum] = [inside(), inside(), inside()] as const;
  using outside = f32('outside');
  const batch = new Batch(device, 'add');
  const dispatch = (bindings: { x: Tensor; y: Tensor; sum: Tensor }): void =>
    batch.dispatch(add, { params: {}, bindings, uniforms: { count: 4 }, workgroups: 1 });
  const code = 'invalid-argument';
  for (const [bindings, named] of [
    [{ x, y: x, sum }, ['x', 'y']],
    [{ x, y, sum: y }, ['y', 'sum']],
    [{ x: outside, y, sum: outside }, ['x', 'sum']],
  ] as const) {
    expect(() => dispatch(bindings)).toThrow(
      expect.objectContaining({ code, context: { kernel: 'add', bindings: named } }),
    );
  }
  x.write(Float32Array.of(1, 2, 3, 4));
  y.write(Float32Array.of(5, 6, 7, 8));
  dispatch({ x, y, sum });
  dispatch({ x, y: x, sum: outside });
  batch.submit();
  expect(await sum.read()).toEqual(Float32Array.of(6, 8, 10, 12));
  expect(await outside.read()).toEqual(Float32Array.of(2, 4, 6, 8));
  for (const tensor of [x, y, sum]) tensor.dispose();
  arena.dispose();
});

it('forgets the bind groups of a disposed tensor, also for the tensors beside it', async () => {
  using x = f32('kept');
  using y = f32('kept too');
  x.write(Float32Array.of(1, 2, 3, 4));
  run(x, y);
  for (let i = 0; i < 10; i++) {
    using passing = f32('passing');
    run(x, passing);
    run(passing, y);
  }
  device.kernels.check();
  const before = device.counters.bindGroupsCreated;
  run(x, y);
  expect(device.counters.bindGroupsCreated).toBe(before);
  expect(await y.read()).toEqual(Float32Array.of(1, 2, 3, 4));
});

it('forgets the oldest bind groups over its limit', () => {
  using x = f32('kept');
  const buffer = device.gpuDevice.createBuffer({ label: 'fake ranges', size: 4, usage: 0x80 });
  // The cache holds kernels of every parameter type.
  const compiled = device.kernels.compiled(copy as never, {}, false);
  const { createBindGroup } = device.gpuDevice;
  // Only the bookkeeping is of interest: 20,000 groups of the driver would take seconds.
  device.gpuDevice.createBindGroup = () => ({ label: '' }) as GPUBindGroup;
  for (let offsetBytes = 0; offsetBytes < 20_000; offsetBytes++) {
    device.kernels.bindGroup(compiled, [x, { buffer, offsetBytes, sizeBytes: 4 }], buffer);
  }
  device.gpuDevice.createBindGroup = createBindGroup;
  device.kernels.check();
  device.kernels.forget(buffer);
  device.kernels.check();
  buffer.destroy();
});

it('lets foreign buffers be collected, which nobody forgets', async () => {
  setFlagsFromString('--expose-gc');
  // The flag makes the function in contexts that are created after it.
  const collect = runInNewContext('gc') as () => void;
  using x = f32('kept');
  const refs: WeakRef<GPUBuffer>[] = [];
  for (let i = 0; i < 100; i++) {
    const buffer = device.gpuDevice.createBuffer({ size: 16, usage: 0x80 | 0x4 | 0x8 });
    run(x, tensorFromBuffer(device, buffer, { dtype: 'f32', shape: [4] }));
    buffer.destroy();
    refs.push(new WeakRef(buffer));
  }
  await device.settle();
  for (let i = 0; i < 5; i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    collect();
  }
  const alive = refs.filter((ref) => ref.deref() !== undefined).length;
  expect(alive).toBeLessThan(10);
});

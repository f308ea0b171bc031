/** Kernels of both sites against their definitions, over odd sizes and every class of number. */
import { createGpu } from '@vramkit/adapter';
import { createTensor, openDevice, type VramDevice } from '@vramkit/core';
import { seededRandom } from '@vramkit/core/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { narrowCpu, roundCpu, sumSquaresCpu } from './adam/gradient.cpu.js';
import { DeviceState } from './device-state.js';
import { HostPool, gpuOnly, zeroOffload, type HostKernel } from './index.js';

let gpu: GPU;
let device: VramDevice;
beforeAll(async () => {
  ({ gpu } = await createGpu());
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

/** Numbers of every class but f32 subnormals, which devices may flush, and ties of both formats. */
function specialValues(): Float32Array {
  const values = [0, -0, 1, -1, 65504, 65519.99, 65520, -70000, 6e-8, 2 ** -24, 2 ** -25, 3e38];
  values.push(Infinity, -Infinity, 6.1e-5, 2 ** -14, 1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -11);
  values.push(1 + 3 * 2 ** -11, 3.5 * 2 ** -24, 2.5 * 2 ** -24);
  const random = seededRandom(9);
  for (let i = 0; i < 3000; i++) values.push(random.normal() * 2 ** random.integer(-30, 20));
  return Float32Array.from(values);
}

const DTYPES = ['f32', 'f16', 'bf16'] as const;

describe.each(DTYPES)('rounding to %s', (dtype) => {
  it('is the definition, bit for bit, on the device and on the host', async () => {
    const values = specialValues();
    const parameterCount = values.length;
    const layout = { parameterCount, subgroupSize: parameterCount, flushDType: dtype };
    const expected = values.map((value) => roundCpu(value, dtype));
    using source = createTensor(device, {
      dtype: 'f32',
      shape: [parameterCount],
      kind: 'activations',
      label: 'source',
    });
    source.write(values);
    const state = new DeviceState(device, zeroOffload(layout), device.memory);
    state.sendFlush(0, 0, source);
    await state.receiveFlush(0, 0, (bytes) => {
      const wide = dtype === 'f32';
      const bits = wide
        ? new Float32Array(bytes.slice().buffer)
        : new Uint16Array(bytes.slice().buffer);
      values.forEach((value, i) => expect(bits[i]).toBe(narrowCpu(value, dtype)));
    });
    state.dispose();
    if (dtype === 'f32') return;
    const { rounded, bits } = await roundOnHost(values, dtype);
    values.forEach((value, i) => expect(bits[i]).toBe(narrowCpu(value, dtype)));
    expect(rounded).toEqual(expected);
  });
});

/** Narrows and widens again by the WebAssembly kernels. */
async function roundOnHost(values: Float32Array, dtype: 'f16' | 'bf16') {
  const memory = new WebAssembly.Memory({ initial: 4, maximum: 4, shared: true });
  const count = Math.ceil(values.length / 16) * 16;
  const [wide, narrow, sum] = [1024, 1024 + 4 * count, 1024 + 6 * count];
  new Float32Array(memory.buffer, wide, values.length).set(values);
  const pool = new HostPool(memory, { threads: 2 });
  const run = (kernel: HostKernel, addresses: number[], strides: number[], scalars?: number[]) =>
    pool.run({ kernel, addresses, strides, count, ...(scalars ? { scalars } : {}) });
  await run(`narrow_${dtype}`, [wide, narrow], [4, 2]);
  await run(`add_${dtype}`, [narrow, sum], [2, 4], [0]);
  await pool.dispose();
  return {
    bits: new Uint16Array(memory.buffer, narrow, values.length).slice(),
    rounded: new Float32Array(memory.buffer, sum, values.length).slice(),
  };
}

describe('sums of squares', () => {
  it.each([1, 3, 1023, 1024, 1025, 5000, 70_001])('of %i values are the definition', async (n) => {
    const values = seededRandom(n).float32Array(n);
    const layout = { parameterCount: n, subgroupSize: n };
    using source = createTensor(device, {
      dtype: 'f32',
      shape: [n],
      kind: 'activations',
      label: 'source',
    });
    source.write(values);
    const state = new DeviceState(device, gpuOnly(layout), device.memory);
    state.keepGradient(0, source, false);
    const [sums] = await state.sumSquares();
    expect(sums).toEqual(sumSquaresCpu(values));
    state.keepGradient(0, source, true);
    const [doubled] = await state.sumSquares();
    expect(doubled).toEqual(sumSquaresCpu(values.map((value) => 2 * value)));
    state.dispose();
  });

  it('exceed every sum of finite gradients where one is not', async () => {
    for (const value of [NaN, Infinity, -Infinity]) {
      const sum = sumSquaresCpu(Float32Array.of(1, value))[0] ?? 0;
      expect(sum).toBeGreaterThanOrEqual(3.4028234663852886e38);
    }
    await Promise.resolve();
  });
});

/** Views of tensors: what they cover, and what they refuse. */
import { createGpu } from '@vramkit/adapter';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  Batch,
  createTensor,
  openDevice,
  tensorFromBuffer,
  type DType,
  type VramDevice,
} from './index.js';

let device: VramDevice;
beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

const make = (dtype: DType, shape: readonly number[]) =>
  createTensor(device, { dtype, shape, kind: 'activations', label: 'x' });
const invalid = expect.objectContaining({ code: 'invalid-argument' });

describe('slices of elements smaller than a word', () => {
  it.each(['f16', 'bf16', 'u8', 'i8'] as const)('of %s end between words', async (dtype) => {
    using x = make(dtype, [5, 3]);
    const floats = Float32Array.from({ length: 15 }, (_, i) => i + 1);
    const arrays = { f16: floats, bf16: floats, u8: Uint8Array.from(floats) };
    const data = dtype === 'i8' ? Int8Array.from(floats) : arrays[dtype];
    x.write(data);
    for (let start = 0; start <= 5; start++) {
      for (let count = 0; start + count <= 5; count++) {
        const end = start + count;
        const bytes = dtype === 'f16' || dtype === 'bf16' ? 6 : 3;
        if ((start * bytes) % 4 !== 0 || ((end * bytes) % 4 !== 0 && end < 5)) {
          expect(() => x.slice(start, count)).toThrow(invalid);
          continue;
        }
        const part = x.slice(start, count);
        part.write(data.slice(start * 3, end * 3));
        expect(await part.read()).toEqual(data.slice(start * 3, end * 3));
        expect(await x.read()).toEqual(data);
      }
    }
  });
});

describe('empty slices', () => {
  it('cover nothing, also at the end', async () => {
    using x = make('u32', [3, 2]);
    using y = make('u32', [6]);
    const data = Uint32Array.of(1, 2, 3, 4, 5, 6);
    x.write(data);
    y.write(data);
    const batch = new Batch(device, 'empty');
    for (let row = 0; row <= 3; row++) {
      const empty = x.slice(row, 0);
      expect(empty.sizeBytes).toBe(0);
      batch.clear(empty);
      batch.copy(empty, y);
      empty.write(new Uint32Array());
      expect(await empty.read()).toEqual(new Uint32Array());
    }
    batch.submit();
    expect(await x.read()).toEqual(data);
    expect(await y.read()).toEqual(data);
  });

  it('of an empty tensor cover nothing, while the tensor can be bound', () => {
    using x = make('f32', [0, 4]);
    expect(x.sizeBytes).toBe(4);
    expect(x.slice(0, 0).sizeBytes).toBe(0);
    expect(x.reshape([0]).sizeBytes).toBe(0);
  });
});

describe('tensors over foreign buffers', () => {
  it('start at a multiple of 4 within the buffer', () => {
    const buffer = device.gpuDevice.createBuffer({ size: 16, usage: 0x80 | 0x4 | 0x8 });
    const at = (offsetBytes: number) =>
      tensorFromBuffer(device, buffer, { dtype: 'f16', shape: [3], offsetBytes });
    for (const bad of [2, 1.5, -4, NaN, 12]) expect(() => at(bad)).toThrow(invalid);
    expect(at(8).sizeBytes).toBe(8);
    buffer.destroy();
  });
});

describe('errors', () => {
  it('name the tensor whose elements are of another type than the array', () => {
    using x = make('f32', [2]);
    expect(() => x.write(new Uint32Array(2))).toThrow(
      /invalid-argument: 'x' of f32 is written from a Float32Array, not a Uint32Array/,
    );
  });

  it('are typed for shapes and element types that are none, and nothing is allocated', () => {
    const before = device.memory.stats().liveBytes;
    const buffer = device.gpuDevice.createBuffer({ size: 16, usage: 0x80 | 0x4 | 0x8 });
    const [dtype, shape] = ['i64' as DType, 4 as unknown as readonly number[]];
    for (const bad of [
      () => make(dtype, [2]),
      () => make('f32', shape),
      () => tensorFromBuffer(device, buffer, { dtype, shape: [2] }),
      () => tensorFromBuffer(device, buffer, { dtype: 'f32', shape }),
    ]) {
      expect(bad).toThrow(invalid);
    }
    expect(device.memory.stats().liveBytes).toBe(before);
    buffer.destroy();
  });
});

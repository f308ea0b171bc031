/** Reads of more than one staging buffer, with room for all of them and without. */
import { createGpu } from '@vramkit/adapter';
import { beforeAll, expect, it } from 'vitest';
import { countersSince, createTensor, openDevice, type Tensor, type VramDevice } from './index.js';

const MIB = 2 ** 20;

let gpu: GPU;
beforeAll(async () => {
  ({ gpu } = await createGpu());
});

/** Runs `body` with a tensor of distinct words on a device that has `roomBytes` beside it. */
async function withTensor(
  sizeBytes: number,
  roomBytes: number,
  body: (device: VramDevice, x: Tensor, values: Uint32Array) => Promise<void>,
): Promise<void> {
  const probe = await openDevice({ gpu });
  const fixed = probe.memory.stats().reservedBytes;
  probe.dispose();
  const device = await openDevice({ gpu, budgetBytes: fixed + sizeBytes + roomBytes });
  const shape = [sizeBytes / 4];
  const x = createTensor(device, { dtype: 'u32', shape, kind: 'activations', label: 'x' });
  const values = Uint32Array.from({ length: sizeBytes / 4 }, (_, i) => i ^ 0x5a5a5a);
  x.write(values);
  try {
    await body(device, x, values);
  } finally {
    x.dispose();
    device.dispose();
  }
}

/** Whether two arrays are equal; faster than `toEqual` on millions of words. */
const same = (a: ArrayBufferView, b: ArrayBufferView): boolean =>
  Buffer.compare(
    Buffer.from(a.buffer, a.byteOffset, a.byteLength),
    Buffer.from(b.buffer, b.byteOffset, b.byteLength),
  ) === 0;

it('gives the bytes of the moment of the call, also of a range of many chunks', () =>
  withTensor(20 * MIB + 4, 64 * MIB, async (device, x, values) => {
    const seen: number[] = [];
    const reading = x.read({ onProgress: (done) => seen.push(done) });
    x.write(new Uint32Array(values.length));
    expect(same(await reading, values)).toBe(true);
    expect(seen).toEqual([8 * MIB, 16 * MIB, 20 * MIB + 4]);
  }));

it('creates no buffer where a read of many chunks is repeated', () =>
  withTensor(40 * MIB, 64 * MIB, async (device, x) => {
    await x.read();
    const before = { ...device.counters };
    await x.read();
    expect(countersSince(before, device.counters)).toMatchObject({ buffersCreated: 0, submits: 1 });
  }));

it.each([
  [3_565_156, 367_000],
  [20 * MIB, 3 * MIB],
  [MIB, 4096],
])('reads %d B in parts where %d B are free', (size, room) =>
  withTensor(size, room, async (_device, x, values) => {
    expect(same(await x.read(), values)).toBe(true);
  }),
);

it('reads at once or not at all where it is told to', () =>
  withTensor(3 * MIB, MIB, async (device, x, values) => {
    await expect(x.read({ atOnce: true })).rejects.toMatchObject({
      code: 'out-of-memory',
      context: { kind: 'staging', label: 'readback' },
    });
    expect(same(await x.read(), values)).toBe(true);
    expect(
      same(await x.slice(0, MIB / 4).read({ atOnce: true }), values.subarray(0, MIB / 4)),
    ).toBe(true);
  }));

it('fails with out-of-memory where not even the smallest staging buffer fits', () =>
  withTensor(MIB, 4095, async (_device, x) => {
    await expect(x.read()).rejects.toMatchObject({
      code: 'out-of-memory',
      context: { kind: 'staging', shortfallBytes: 1 },
    });
  }));

it('frees idle staging of other sizes where a read needs the room', () =>
  withTensor(8 * MIB, 8 * MIB, async (device, x, values) => {
    await x.read();
    const half = x.slice(0, MIB);
    expect(same(await half.read({ atOnce: true }), values.subarray(0, MIB))).toBe(true);
    expect(device.memory.stats().liveBytesByKind.staging).toBeLessThan(5 * MIB);
  }));

it('frees its staging when it is stopped between chunks', () =>
  withTensor(32 * MIB, 32 * MIB, async (device, x, values) => {
    const controller = new AbortController();
    const onProgress = (): void => controller.abort();
    await expect(x.read({ signal: controller.signal, onProgress })).rejects.toMatchObject({
      code: 'aborted',
    });
    device.readback.trim();
    expect(device.readback.buffers.length).toBe(0);
    expect(same(await x.read(), values)).toBe(true);
  }));

it('rejects with a typed error where the device is disposed meanwhile', async () => {
  const own = await openDevice({ gpu });
  const x = createTensor(own, { dtype: 'u32', shape: [5 * MIB], kind: 'kv', label: 'x' });
  const reading = x.read();
  x.dispose();
  own.dispose();
  await expect(reading).rejects.toMatchObject({ code: 'disposed' });
});

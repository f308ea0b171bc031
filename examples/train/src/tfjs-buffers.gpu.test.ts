/** TensorFlow.js takes every buffer out of our budget, is refused there, gives idle ones back. */
import { createGpu } from '@vramkit/adapter';
import { allocate, openDevice } from '@vramkit/core';
import { expect, it } from 'vitest';
import { closeTfjs, openTfjs } from './tfjs.js';

const log = (line: string): void => void process.stderr.write(`${line}\n`);
const KIB = 1024;
const BUDGET = 1024 * KIB;

it('has no buffer that the budget does not know', async () => {
  const { gpu } = await createGpu();
  using device = await openDevice({ gpu, budgetBytes: BUDGET });
  const { gpuDevice } = device;
  const create = gpuDevice.createBuffer.bind(gpuDevice);
  let created = 0;
  gpuDevice.createBuffer = (descriptor) => {
    created += 1;
    return create(descriptor);
  };
  const tf = await openTfjs(device, log);
  const before = device.counters.buffersCreated;
  created = 0;
  const side = 128; // 64 KiB each
  const x = tf.tensor(
    Float32Array.from({ length: side * side }, (_, at) =>
      at % side === Math.floor(at / side) ? 2 : 0,
    ),
    [side, side],
  );
  const squared = tf.matMul(x, x);
  const values = await squared.data();
  expect([values[0], values[1], values[side + 1]]).toEqual([4, 0, 4]);
  expect(created).toBeGreaterThan(3);
  expect(device.counters.buffersCreated - before).toBe(created);
  const { liveBytesByKind } = device.memory.stats();
  expect(liveBytesByKind.activations).toBeGreaterThanOrEqual(2 * side * side * 4);
  const known = liveBytesByKind.activations;

  const tooLarge = tf.tensor(new Float32Array(BUDGET / 4), [512, 512]);
  expect(() => tf.square(tooLarge)).toThrow(
    expect.objectContaining({
      code: 'out-of-memory',
      context: expect.objectContaining({ label: 'TensorFlow.js', kind: 'activations' }),
    }),
  );

  // What the library keeps for later goes back where somebody else needs it.
  for (const tensor of [x, squared, tooLarge]) tensor.dispose();
  const free = BUDGET - device.memory.stats().reservedBytes;
  const sizeBytes = free + 64 * KIB;
  const own = allocate(device.memory, { sizeBytes, kind: 'weights', label: 'ours' });
  expect(device.memory.stats().liveBytesByKind.activations).toBeLessThan(known);
  device.memory.free(own);
  closeTfjs(tf);
  expect(device.memory.stats().liveBytesByKind.activations).toBe(0);
});

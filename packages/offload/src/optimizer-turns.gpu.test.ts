/** What touches all state of an optimizer takes turns, and a disposed one takes no state. */
import { createGpu } from '@vramkit/adapter';
import { openDevice, type VramDevice } from '@vramkit/core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createOptimizer, deepOptimizerStates, gpuOnly } from './index.js';
import { addGradients, train, trainData } from './testing/train.js';

let device: VramDevice;
beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

const LAYOUT = { parameterCount: 9 * 1024 + 77, subgroupSize: 1024 } as const;
const WHOLE = gpuOnly(LAYOUT);
const MIXED = deepOptimizerStates(
  { ...LAYOUT, parameterDType: 'bf16', flushDType: 'bf16', atomic: true },
  { stride: 2, ratio: 0.8 },
);
const ADAM = { adam: { learningRate: 0.01, weightDecay: 0.1 } };
const DATA = trainData(LAYOUT.parameterCount, 2, 11);
const code = (name: string) => expect.objectContaining({ code: name });

it('a step refuses gradients, reads and writes, and is what it would be alone', async () => {
  for (const plan of [WHOLE, MIXED]) {
    const gradients = DATA.gradients.slice(0, 1);
    const alone = await train(device, plan, { ...DATA, gradients }, ADAM);
    await using optimizer = await createOptimizer(device, plan, DATA, ADAM);
    await addGradients(device, optimizer, DATA.gradients[0] ?? []);
    const step = optimizer.step();
    const second = addGradients(device, optimizer, DATA.gradients[1] ?? []);
    await expect(second).rejects.toThrow('step() is under way');
    await expect(optimizer.readState()).rejects.toThrow('step() is under way');
    await expect(optimizer.writeState(DATA)).rejects.toThrow('step() is under way');
    await expect(optimizer.step()).rejects.toEqual(code('invalid-argument'));
    expect(await step).toEqual(expect.objectContaining({ step: 1, skipped: false }));
    expect(await optimizer.readState()).toEqual(alone.state);
  }
});

it('a read refuses a step, and gradients may come meanwhile', async () => {
  await using optimizer = await createOptimizer(device, WHOLE, DATA, ADAM);
  await addGradients(device, optimizer, DATA.gradients[0] ?? []);
  const read = optimizer.readState();
  await expect(optimizer.step()).rejects.toThrow('readState() is under way');
  await addGradients(device, optimizer, DATA.gradients[1] ?? []);
  expect((await read).parameters).toEqual(DATA.parameters);
  expect((await optimizer.step()).step).toBe(1);
});

it('a disposed optimizer takes no state, also where that is under way', async () => {
  const optimizer = await createOptimizer(device, WHOLE, DATA, ADAM);
  const written = optimizer.writeState(DATA);
  const disposed = optimizer.dispose();
  await expect(written).rejects.toEqual(code('disposed'));
  await disposed;
  const { uploadedBytes } = device.counters;
  await expect(optimizer.writeState(DATA)).rejects.toEqual(code('disposed'));
  expect(device.counters.uploadedBytes).toBe(uploadedBytes);
  await expect(optimizer.step()).rejects.toEqual(code('disposed'));
});

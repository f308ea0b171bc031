/** A checkpoint written in the middle of a run and read under another plan gives the same end. */
import { createGpu } from '@vramkit/adapter';
import { openDevice } from '@vramkit/core';
import { Checkpoints, memoryStore } from '@vramkit/storage';
import { expect, it } from 'vitest';
import { deepOptimizerStates, stateFromTensors, stateToTensors, zeroOffload } from './index.js';
import { train, trainData } from './testing/train.js';

it('goes on from a stored state, also under another plan of the same sites', async () => {
  const { gpu } = await createGpu();
  const device = await openDevice({ gpu });
  const layout = { parameterCount: 5000, subgroupSize: 1024, flushDType: 'bf16' } as const;
  const options = { lossScale: { initial: 4, growthSteps: 2 }, adam: { weightDecay: 0.1 } };
  const data = trainData(layout.parameterCount, 6, 8);
  const plan = deepOptimizerStates(layout, { stride: 2 });
  const whole = await train(device, plan, data, options);
  const half = { ...data, gradients: data.gradients.slice(0, 3) };
  const { state } = await train(device, plan, half, options);

  const checkpoints = new Checkpoints(memoryStore());
  const { tensors, metadata } = stateToTensors(state);
  await checkpoints.save('step-3', tensors, { metadata });
  const manifest = await checkpoints.open('step-3');
  const read = (name: string): Promise<Uint8Array> => checkpoints.read(manifest, name);
  const stored = await stateFromTensors(manifest.metadata, read);
  expect(stored).toEqual(state);

  const rest = { ...stored, gradients: data.gradients.slice(3) };
  expect((await train(device, plan, rest, options)).state).toEqual(whole.state);
  const all = await train(device, zeroOffload(layout), data, options);
  const other = zeroOffload({ ...layout, subgroupSize: 2048, atomic: true });
  const first = await train(device, zeroOffload(layout), half, options);
  const again = { ...first.state, gradients: data.gradients.slice(3) };
  expect((await train(device, other, again, options)).state).toEqual(all.state);

  const corrupt = expect.objectContaining({ code: 'corrupt-data' });
  await expect(stateFromTensors({}, read)).rejects.toEqual(corrupt);
  device.dispose();
});

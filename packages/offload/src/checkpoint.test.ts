/** A state read from Node's Buffers, whose slice() is a view of their pool. */
import { expect, it } from 'vitest';
import { stateFromTensors, stateToTensors } from './checkpoint.js';

it('reads the values of bytes at an odd place of their memory', async () => {
  const arrays = {
    parameters: Float32Array.of(1, 2, 3),
    firstMoment: Float32Array.of(4, 5, 6),
    secondMoment: Float32Array.of(7, 8, 9),
  };
  const state = { step: 3, lossScale: { scale: 4, goodSteps: 1 }, ...arrays };
  const { tensors, metadata } = stateToTensors(state);
  const read = async (name: string): Promise<Uint8Array> => {
    const bytes = tensors.find((tensor) => tensor.name === name)?.bytes ?? new Uint8Array();
    return Buffer.concat([new Uint8Array(1), bytes]).subarray(1);
  };
  expect(await stateFromTensors({ ...metadata }, read)).toEqual(state);
});

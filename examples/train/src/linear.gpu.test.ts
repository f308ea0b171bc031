/** Gradients of TensorFlow.js reach our optimizer on the device, through no host copy. */
import { createGpu } from '@vramkit/adapter';
import { countersSince, openDevice, type VramDevice } from '@vramkit/core';
import { createOptimizer, gpuOnly, type OffloadedOptimizer } from '@vramkit/offload';
import { expect, it } from 'vitest';
import { ModelParameters } from './parameters.js';
import { closeTfjs, openTfjs, type Tf, type TfTensor } from './tfjs.js';

const log = (line: string): void => void process.stderr.write(`${line}\n`);

const SPECS = [
  { name: 'weight', shape: [3, 2] },
  { name: 'bias', shape: [2] },
];
const START = Float32Array.of(0.5, -1, 2, 0.25, -0.5, 1, 0.1, -0.2);
const X = [1, 2, 3, -1, 0.5, 2];
const TARGET = [1, -1, 0, 2];

/** Loss and gradients of |x W + b - target|^2. */
function differentiate(tf: Tf, parameters: ModelParameters) {
  const x = tf.tensor(X, [2, 3]);
  const target = tf.tensor(TARGET, [2, 2]);
  return tf.valueAndGrads((weight, bias) => {
    if (weight === undefined || bias === undefined) throw new Error('two parameters');
    return tf.sum(tf.square(tf.sub(tf.add(tf.matMul(x, weight), bias), target)));
  })(parameters.tensors);
}

async function lossOf(value: TfTensor): Promise<number> {
  return (await value.data())[0] ?? NaN;
}

/** By hand: y = x W + b, dL/dW = 2 x^T (y - t), dL/db = 2 sum (y - t). */
function byHand(): { loss: number; gradient: number[] } {
  const y = [0.5 + 4 - 1.5 + 0.1, -1 + 0.5 + 3 - 0.2, -0.5 + 1 - 1 + 0.1, 1 + 0.125 + 2 - 0.2];
  const off = y.map((value, at) => value - (TARGET[at] ?? 0));
  const [a = 0, b = 0, c = 0, d = 0] = off;
  const weight = [0, 1, 2].flatMap((row) => {
    const [p = 0, q = 0] = [X[row], X[row + 3]];
    return [2 * (p * a + q * c), 2 * (p * b + q * d)];
  });
  const loss = off.reduce((sum, each) => sum + each * each, 0);
  return { loss, gradient: [...weight, 2 * (a + c), 2 * (b + d)] };
}

/** The first step: what moved, and that nothing passed through the host. */
async function expectFirstStep(
  device: VramDevice,
  optimizer: OffloadedOptimizer,
  give: () => Promise<void>,
): Promise<void> {
  const { gradient } = byHand();
  await device.settle();
  const before = { ...device.counters };
  await give();
  const { downloadedBytes, uploadedBytes } = countersSince(before, device.counters);
  expect({ downloadedBytes, uploadedBytes }).toEqual({ downloadedBytes: 0, uploadedBytes: 0 });
  const { gradientNorm } = await optimizer.step();
  expect(gradientNorm).toBeCloseTo(Math.hypot(...gradient), 3);
  // The first step of Adam moves each parameter by the rate, against its gradient's sign.
  const { parameters, firstMoment } = await optimizer.readState();
  gradient.forEach((each, at) => {
    expect(firstMoment[at]).toBeCloseTo(0.1 * each, 4);
    expect(parameters[at]).toBeCloseTo((START[at] ?? 0) - 0.01 * Math.sign(each), 5);
  });
}

it('a linear layer learns by gradients that never leave the device', async () => {
  const { gpu } = await createGpu();
  using device = await openDevice({ gpu });
  const tf = await openTfjs(device, log);
  const schedule = gpuOnly({ parameterCount: 8, subgroupSize: 8 });
  const adam = { learningRate: 0.01 };
  await using optimizer = await createOptimizer(device, schedule, { parameters: START }, { adam });
  const memory = { memory: device.memory, subgroupSize: 8 };
  const parameters = new ModelParameters(device, tf, SPECS, memory);
  let last = Infinity;
  for (let step = 1; step <= 20; step++) {
    parameters.load(optimizer);
    const { value, grads } = differentiate(tf, parameters);
    const loss = await lossOf(value);
    expect(loss).toBeLessThan(last);
    last = loss;
    const give = (): Promise<void> => parameters.giveGradients(optimizer, grads);
    if (step === 1) {
      expect(loss).toBeCloseTo(byHand().loss, 4);
      await expectFirstStep(device, optimizer, give);
    } else {
      await give();
      await optimizer.step();
    }
  }
  parameters.dispose();
  closeTfjs(tf);
});

/**
 * Training is the same training wherever the optimizer's state lives, in short form; 200 steps of a
 * larger model: `npm run train -- --compare`.
 */
import { createGpu } from '@vramkit/adapter';
import { openDevice, type VramDevice } from '@vramkit/core';
import { deepOptimizerStates, gpuOnly, zeroOffload } from '@vramkit/offload';
import { memoryStore } from '@vramkit/storage';
import { checkChromeTrace, chromeTrace, peakBytes, Timeline } from '@vramkit/trace';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ByteModel, parameterSpecs, type ModelShape } from './byte-model.js';
import { checkpointsIn } from './checkpointing.js';
import { oneRoundingApart } from './compare.js';
import { parameterCount } from './parameters.js';
import { choosePlan, stateBytes } from './plan.js';
import { normals, uniformFrom } from './random.js';
import { batchFrom } from './text.js';
import { closeTfjs, openTfjs, type Tf } from './tfjs.js';
import { firstParameters, train, type TrainOptions } from './trainer.js';

const TEXT = new TextEncoder().encode(
  'Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in ' +
    'my purse, and nothing particular to interest me on shore, I thought I would sail about a ' +
    'little and see the watery part of the world.',
);
const DENSE: ModelShape = {
  ...{ layers: 1, hidden: 32, heads: 2, kvHeads: 1, headDim: 16, intermediate: 48 },
  ...{ experts: 1, expertsPerToken: 1 },
};
const ROUTED: ModelShape = { ...DENSE, intermediate: 32, experts: 4, expertsPerToken: 2 };
const COMMON = { text: TEXT, rows: 2, length: 12, learningRate: 0.01 };

let device: VramDevice;
let tf: Tf;
beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
  tf = await openTfjs(device, (line) => void process.stderr.write(`${line}\n`));
}, 300_000);
afterAll(() => {
  closeTfjs(tf);
  device.dispose();
});

function layoutOf(model: ModelShape) {
  const count = parameterCount(parameterSpecs(model));
  return { parameterCount: count, subgroupSize: 1024, flushDType: 'bf16' } as const;
}

const losses = async (options: Omit<TrainOptions, 'text' | 'rows' | 'length'>) => {
  const { steps, state } = await train(device, tf, { ...COMMON, ...options });
  return { losses: steps.map(({ loss }) => loss), state };
};

describe.each([
  ['a dense model', DENSE],
  ['a model with routed experts', ROUTED],
])('%s', (_, model) => {
  it('has the gradient that its loss says, along a random direction', async () => {
    const specs = parameterSpecs(model);
    const byteModel = new ByteModel(tf, model, COMMON.length);
    const batch = batchFrom(TEXT, { ...COMMON, seed: 5 });
    const at = firstParameters(model);
    const direction = normals(at.length, 1, uniformFrom(9));
    const names = new Map(specs.map(({ name }, index) => [name, index]));
    const evaluate = async (shift: number) => {
      let start = 0;
      const tensors = specs.map(({ shape }) => {
        const count = shape.reduce((product, extent) => product * extent, 1);
        const values = Float32Array.from(
          { length: count },
          (_unused, i) => (at[start + i] ?? 0) + shift * (direction[start + i] ?? 0),
        );
        start += count;
        return tf.tensor(values, shape);
      });
      const { value, grads } = tf.tidy(() =>
        tf.valueAndGrads((...xs) =>
          byteModel.loss((name) => {
            const tensor = xs[names.get(name) ?? -1];
            if (tensor === undefined) throw new Error(`no ${name}`);
            return tensor;
          }, batch),
        )(tensors),
      );
      const [loss = NaN] = await value.data();
      const gradient = (await Promise.all(grads.map((grad) => grad.data()))).flatMap((g) => [...g]);
      for (const tensor of [...tensors, value, ...grads]) tensor.dispose();
      return { loss, gradient };
    };
    const { gradient } = await evaluate(0);
    const along = gradient.reduce((sum, value, i) => sum + value * (direction[i] ?? 0), 0);
    // Longer steps would change which experts the router chooses, and the loss jumps there.
    const step = 2e-4;
    const [above, below] = [await evaluate(step), await evaluate(-step)];
    const slope = (above.loss - below.loss) / (2 * step);
    // Losses near 5.6 in f32 are off by 1e-6 or so, and slopes by that over the step.
    expect(Math.abs(slope - along)).toBeLessThan(5e-3 + 0.02 * Math.abs(along));
    byteModel.dispose();
  });

  it('learns the same under every plan, in less than its optimizer state takes', async () => {
    const layout = layoutOf(model);
    const deviceBytes = stateBytes(layout.parameterCount) - 1;
    const tooLarge = expect.objectContaining({ code: 'out-of-memory' });
    const resident = { model, schedule: gpuOnly(layout), steps: 24 };
    await expect(losses({ ...resident, deviceBytes })).rejects.toEqual(tooLarge);
    const reference = await losses(resident);
    expect(reference.losses.at(-1)).toBeLessThan((reference.losses[0] ?? 0) - 1);

    const streamed = deepOptimizerStates(layout, { stride: 1 });
    expect((await losses({ ...resident, schedule: streamed })).losses).toEqual(reference.losses);

    const plan = await choosePlan(device, layout, {
      ...{ planner: 'deepOptimizerStates', stride: 2, ratio: 1, deviceBytes, softwareCores: 2 },
    });
    for (const schedule of [plan, zeroOffload(layout)]) {
      const own = await losses({ ...resident, schedule, deviceBytes });
      // Rounding of two kernels over 24 steps; a run that differs in earnest is off by 0.01.
      own.losses.forEach((loss, at) => {
        expect(Math.abs(loss - (reference.losses[at] ?? NaN))).toBeLessThan(2e-4);
      });
    }
    const parameters = oneRoundingApart(firstParameters(model));
    expect((await losses({ ...resident, state: { parameters } })).losses).not.toEqual(
      reference.losses,
    );
  });
});

it('goes on from a checkpoint behind an abort as if nothing had happened', async () => {
  const layout = layoutOf(DENSE);
  const run = { model: DENSE, schedule: deepOptimizerStates(layout, { stride: 2 }), steps: 6 };
  const whole = await losses({ ...run, accumulation: 2 });
  const { save, latest } = checkpointsIn(memoryStore());
  expect(await latest()).toBeUndefined();
  const controller = new AbortController();
  const aborted = expect.objectContaining({ code: 'aborted' });
  const onStep = ({ step }: { step: number }): void => {
    if (step === 5) controller.abort();
  };
  const cut = { ...run, accumulation: 2, save, saveEvery: 2, onStep, signal: controller.signal };
  await expect(losses(cut)).rejects.toEqual(aborted);
  const state = await latest();
  expect(state?.step).toBe(4);
  if (state === undefined) throw new Error('a state was saved');
  const rest = await losses({ ...run, accumulation: 2, state });
  expect(rest.losses).toEqual(whole.losses.slice(4));
  expect(rest.state).toEqual(whole.state);
});

it('is traced: every kind of memory, phases and transfers', async () => {
  const schedule = deepOptimizerStates(layoutOf(DENSE), { stride: 2 });
  const timeline = new Timeline();
  await losses({ model: DENSE, schedule, steps: 2, trace: timeline.sink });
  checkChromeTrace(chromeTrace(timeline.events));
  const { byKind } = peakBytes(timeline.events);
  expect(Object.keys(byKind).sort()).toEqual([
    'activations',
    'gradients',
    'optimizer',
    'staging',
    'weights',
  ]);
  const phases = timeline.events.filter(({ type }) => type === 'phase').map(({ label }) => label);
  expect(phases).toEqual(expect.arrayContaining(['forward and backward', 'update']));
});

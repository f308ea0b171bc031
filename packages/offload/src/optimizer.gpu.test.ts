/** Any plan computes what one subgroup on one site computes, bit for bit. */
import { createGpu } from '@vramkit/adapter';
import { createTensor, openDevice, subrange, type VramDevice } from '@vramkit/core';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { adamCpu } from './adam/adam.cpu.js';
import { adamStep, completeAdam } from './adam/adam.js';
import { roundCpu } from './adam/gradient.cpu.js';
import {
  createOptimizer,
  deepOptimizerStates,
  gpuOnly,
  twinFlow,
  zeroOffload,
  type OptimizerOptions,
  type OptimizerState,
  type Schedule,
  type StateDType,
  type StateLayout,
} from './index.js';
import { train, trainData, type TrainData } from './testing/train.js';

let gpu: GPU;
let device: VramDevice;
beforeAll(async () => {
  ({ gpu } = await createGpu());
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

const NAMES = ['parameters', 'firstMoment', 'secondMoment'] as const;

/** The run of one subgroup on the host and the one on the device. */
async function sequential(layout: StateLayout, data: TrainData, options: OptimizerOptions) {
  const whole = { ...layout, subgroupSize: layout.parameterCount };
  const host = await train(device, zeroOffload(whole), data, options);
  const onDevice = await train(device, gpuOnly(whole), data, options);
  return { host: host.state, device: onDevice.state };
}

/** Expects each subgroup to equal the sequential run of its kernel. */
function expectEqual(
  schedule: Schedule,
  actual: OptimizerState,
  expected: { host: OptimizerState; device: OptimizerState },
): void {
  for (const name of NAMES) {
    for (const { start, count, site } of schedule.subgroups) {
      const reference = site === 'host' ? expected.host : expected.device;
      const ours = actual[name].subarray(start, start + count);
      const theirs = reference[name].subarray(start, start + count);
      // As bytes: a million elements compare at once, and NaN or -0 would not pass.
      const same = Buffer.from(ours.slice().buffer).equals(Buffer.from(theirs.slice().buffer));
      expect(same, `${name} of the subgroup at ${start} on ${site}`).toBe(true);
    }
  }
  expect(actual.step).toBe(expected.host.step);
}

/** Expects what the f64 definition says, elementwise within 1e-6 + 1e-5 relative. */
function expectNearDefinition(
  actual: OptimizerState,
  data: TrainData,
  options: OptimizerOptions,
  dtype: StateDType,
): void {
  const count = data.parameters.length;
  const state = {
    parameters: Float64Array.from(data.parameters),
    firstMoment: new Float64Array(count),
    secondMoment: new Float64Array(count),
  };
  const adam = completeAdam(options.adam ?? {});
  data.gradients.forEach(([gradient = new Float32Array(0)], index) => {
    const rounded = gradient.map((value) => roundCpu(value, dtype));
    adamCpu(state, rounded, adamStep(adam, index + 1));
  });
  for (const name of NAMES) {
    let worst = 0;
    state[name].forEach((value, at) => {
      const error = Math.abs((actual[name][at] ?? NaN) - value);
      worst = Math.max(worst, error / (1e-6 + 1e-5 * Math.abs(value)));
    });
    expect(worst, `${name}: error over tolerance`).toBeLessThanOrEqual(1);
  }
}

describe('equality of plans', () => {
  it('adds the gradients of one subgroup in the order of its passes', async () => {
    const size = { parameterCount: 2, subgroupSize: 2, slots: 3, atomic: false };
    const layout: StateLayout = { ...size, parameterDType: 'f32', flushDType: 'f16' };
    const data = trainData(2, 20, 3, 2);
    const runs: OptimizerState[] = [];
    for (let run = 0; run < 12; run += 1) {
      runs.push((await train(device, zeroOffload(layout), data, { threads: 1 })).state);
    }
    for (const state of runs) expect(state).toEqual(runs[0]);
  });

  it.each([1, 4])('adds gradients of %i subgroups that do not wait for each other', async (n) => {
    const layout = { parameterCount: n * 1024, subgroupSize: 1024, flushDType: 'bf16' } as const;
    const data = trainData(layout.parameterCount, 1, 5, 3);
    const plan = zeroOffload(layout);
    const { state, results } = await train(device, plan, data);
    const optimizer = await createOptimizer(device, plan, data);
    const tensors = data.gradients[0]?.map((gradient) => {
      const shape = [gradient.length];
      const options = { dtype: 'f32', shape, kind: 'gradients', label: 'test' } as const;
      const tensor = createTensor(device, options);
      tensor.write(gradient);
      return tensor;
    });
    const adding = (tensors ?? []).flatMap((tensor) =>
      plan.subgroups.map(({ start, count }, index) =>
        optimizer.addGradient(index, subrange(tensor, 4 * start, 4 * count)),
      ),
    );
    // A step waits for what was asked for before it.
    expect((await optimizer.step()).gradientNorm).toBe(results[0]?.gradientNorm);
    await Promise.all(adding);
    expect(await optimizer.readState()).toEqual(state);
    tensors?.forEach((tensor) => tensor.dispose());
    await optimizer.dispose();
  });

  it('holds for any stride, ratio, subgroup size, element type and remainder', async () => {
    const dtype = fc.constantFrom('f32' as const, 'f16' as const, 'bf16' as const);
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          parameterCount: fc.integer({ min: 1, max: 12_000 }),
          subgroupSize: fc.integer({ min: 1, max: 4000 }),
          parameterDType: dtype,
          flushDType: dtype,
          slots: fc.integer({ min: 1, max: 3 }),
          atomic: fc.boolean(),
        }),
        fc.record({
          stride: fc.oneof(fc.integer({ min: 1, max: 6 }), fc.constant(Infinity)),
          ratio: fc.double({ min: 0, max: 1, noNaN: true }),
          residents: fc.constantFrom('head' as const, 'tail' as const),
        }),
        fc.record({
          mode: fc.constantFrom('adam' as const, 'adamw' as const),
          weightDecay: fc.constantFrom(0, 0.1),
          clipNorm: fc.constantFrom(Infinity, 0.5),
          passes: fc.integer({ min: 1, max: 2 }),
          threads: fc.integer({ min: 1, max: 2 }),
        }),
        async (layout, plan, { mode, weightDecay, clipNorm, passes, threads }) => {
          const data = trainData(layout.parameterCount, 20, 3, passes);
          const options = { adam: { mode, weightDecay, learningRate: 0.01 }, clipNorm, threads };
          const expected = await sequential(layout, data, options);
          const schedule = deepOptimizerStates(layout, plan);
          const { state, weights } = await train(device, schedule, data, options);
          expectEqual(schedule, state, expected);
          const dtypeOf = layout.parameterDType;
          expect(weights).toEqual(state.parameters.map((value) => roundCpu(value, dtypeOf)));
        },
      ),
      { numRuns: 8 },
    );
  });

  const sizes = [1, 22, 55, 128, 100_003, 1_048_576];
  it.each(sizes)('holds for %i parameters, near the f64 definition', async (parameterCount) => {
    const big = parameterCount > 1e6;
    const subgroupSize = Math.ceil(parameterCount / 7);
    const layout = { parameterCount, subgroupSize, flushDType: 'bf16' } as const;
    for (const mode of big ? (['adamw'] as const) : (['adamw', 'adam'] as const)) {
      const options = { adam: { mode, weightDecay: 0.1 } };
      const data = trainData(parameterCount, 20, 5);
      const expected = await sequential(layout, data, options);
      for (const side of ['host', 'device'] as const) {
        expectNearDefinition(expected[side], data, options, 'bf16');
      }
      const plans = [
        deepOptimizerStates(layout, { stride: 2 }),
        deepOptimizerStates(layout, { stride: 3, ratio: 0.6, residents: 'head' }),
        twinFlow(layout, { ratio: 0.4 }),
      ];
      for (const schedule of plans.slice(0, big ? 1 : 3)) {
        const { state } = await train(device, schedule, data, options);
        expectEqual(schedule, state, expected);
      }
    }
  });
});

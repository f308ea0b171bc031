/** Runs plans on made-up gradients, for tests that compare what they come to. */
import { createTensor, type VramDevice } from '@vramkit/core';
import { seededRandom } from '@vramkit/core/testing';
import {
  createOptimizer,
  type OffloadedOptimizer,
  type OptimizerOptions,
  type OptimizerState,
  type Schedule,
  type StepResult,
} from '../index.js';

/** What a run starts from and is fed. */
export interface TrainData {
  readonly parameters: Float32Array;
  /** Gradients by step and pass. */
  readonly gradients: readonly (readonly Float32Array[])[];
}

/** Seeded parameters and gradients. */
export function trainData(count: number, steps: number, seed = 1, passes = 1): TrainData {
  const random = seededRandom(seed);
  // A short stream repeated with a drift: fast to make for any count, never the same from step to
  // step.
  const stream = random.float32Array(4099);
  const fill = (salt: number, scale: number): Float32Array =>
    Float32Array.from(
      { length: count },
      (_, i) => scale * (stream[(i * 7 + salt * 131 + ((i / 4099) | 0)) % 4099] ?? 0),
    );
  const gradients = Array.from({ length: steps }, (_, step) =>
    Array.from({ length: passes }, (_unused, pass) => fill(step * 10 + pass + 1, 0.1)),
  );
  return { parameters: fill(0, 1), gradients };
}

/** Adds the gradients of one step to an optimizer. */
export async function addGradients(
  device: VramDevice,
  optimizer: OffloadedOptimizer,
  passes: readonly Float32Array[],
): Promise<void> {
  for (const gradient of passes) {
    const shape = [gradient.length];
    using tensor = createTensor(device, {
      dtype: 'f32',
      shape,
      kind: 'activations',
      label: 'test gradient',
    });
    tensor.write(gradient);
    for (const [index, { start, count }] of optimizer.schedule.subgroups.entries()) {
      const range = {
        buffer: tensor.buffer,
        offsetBytes: tensor.offsetBytes + 4 * start,
        sizeBytes: 4 * count,
      };
      await optimizer.addGradient(index, range);
    }
    await device.settle();
  }
}

/** Runs all steps of `data` under a plan. */
export async function train(
  device: VramDevice,
  schedule: Schedule,
  data: TrainData,
  options: OptimizerOptions = {},
): Promise<{ state: OptimizerState; weights: Float32Array; results: StepResult[] }> {
  const optimizer = await createOptimizer(device, schedule, data, options);
  try {
    const results: StepResult[] = [];
    for (const passes of data.gradients) {
      await addGradients(device, optimizer, passes);
      results.push(await optimizer.step());
    }
    return {
      state: await optimizer.readState(),
      weights: await readWeights(optimizer),
      results,
    };
  } finally {
    await optimizer.dispose();
  }
}

/** The parameters as the model sees them. */
export async function readWeights(optimizer: OffloadedOptimizer): Promise<Float32Array> {
  const weights = new Float32Array(optimizer.schedule.layout.parameterCount);
  for (const [index, { start }] of optimizer.schedule.subgroups.entries()) {
    weights.set((await optimizer.weights[index]?.readFloats()) ?? [], start);
  }
  return weights;
}

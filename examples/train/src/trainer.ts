/**
 * A training run: TensorFlow.js computes losses and gradients, the optimizer of `@vramkit/offload`
 * does everything else, under a plan and a limit on device bytes.
 *
 * What a step reads depends on its number alone, so a run that goes on from a saved state is the
 * uninterrupted one.
 */
import {
  fail,
  limitedResource,
  tracedResource,
  type MemoryResource,
  type TraceSink,
  type VramDevice,
} from '@vramkit/core';
import {
  createOptimizer,
  warmupCosine,
  type OffloadedOptimizer,
  type OptimizerState,
  type Schedule,
} from '@vramkit/offload';
import { activationsMeter } from './activations-meter.js';
import { ByteModel, parameterSpecs, type ByteBatch, type ModelShape } from './byte-model.js';
import { initialParameters, ModelParameters } from './parameters.js';
import { batchFrom } from './text.js';
import type { Tf, TfTensor } from './tfjs.js';

/** What is trained, on what, and for how long. */
export interface TrainOptions {
  readonly model: ModelShape;
  readonly text: Uint8Array;
  /** Where optimizer state lives. */
  readonly schedule: Schedule;
  /** Most bytes that the optimizer may take on the device, staging included. Default: no limit. */
  readonly deviceBytes?: number;
  /** Last step. */
  readonly steps: number;
  /** Rows of a batch. */
  readonly rows: number;
  /** Bytes of a row. */
  readonly length: number;
  /** Batches whose gradients are added up for one step. Default: 1. */
  readonly accumulation?: number;
  /** Rate at its peak, behind a tenth of the steps. Default: 0.003. */
  readonly learningRate?: number;
  /** Of the first parameters and the batches. Default: 1. */
  readonly seed?: number;
  /** Steps that the rate's schedule spans. Default: `steps`. */
  readonly plannedSteps?: number;
  /** State to go on from. Default: the first parameters. */
  readonly state?: Pick<OptimizerState, 'parameters'> & Partial<OptimizerState>;
  /** Called with the state behind every `saveEvery` steps, and awaited. Default: never. */
  readonly save?: (state: OptimizerState) => Promise<void>;
  /** Default: 50. */
  readonly saveEvery?: number;
  /** Receives memory, transfers and phases. Default: none. */
  readonly trace?: TraceSink;
  /** Called with each step. Default: none. */
  readonly onStep?: (step: TrainedStep) => void;
  /** Checked before each operation of a step. Default: never stops. */
  readonly signal?: AbortSignal;
}

/** One step of a run. */
export interface TrainedStep {
  /** From 1. */
  readonly step: number;
  /** Mean over the batches of the step, nats a byte. */
  readonly loss: number;
  readonly gradientNorm: number;
  /** Losses and gradients, until the device was done. */
  readonly modelMs: number;
  /** Norm and update. */
  readonly optimizerMs: number;
}

/** What a run gave. */
export interface TrainResult {
  readonly steps: readonly TrainedStep[];
  readonly state: OptimizerState;
}

/** Parameters to begin with. */
export function firstParameters(model: ModelShape, seed = 1): Float32Array {
  return initialParameters(parameterSpecs(model), seed);
}

/** A run under way. */
class Run {
  readonly #device: VramDevice;
  readonly #tf: Tf;
  readonly #options: TrainOptions;
  readonly #names: readonly string[];
  readonly #model: ByteModel;
  readonly #parameters: ModelParameters;

  constructor(device: VramDevice, tf: Tf, options: TrainOptions, memory: MemoryResource) {
    const { model, length, schedule } = options;
    const specs = parameterSpecs(model);
    const { subgroupSize } = schedule.layout;
    this.#device = device;
    this.#tf = tf;
    this.#options = options;
    this.#names = specs.map(({ name }) => name);
    this.#parameters = new ModelParameters(device, tf, specs, { memory, subgroupSize });
    this.#model = new ByteModel(tf, model, length);
  }

  /** Losses and gradients of a step, handed to the optimizer; gives the mean loss. */
  async passes(optimizer: OffloadedOptimizer, step: number): Promise<number> {
    const { text, rows, length, accumulation = 1, seed = 1 } = this.#options;
    this.#parameters.load(optimizer);
    let sum = 0;
    for (let pass = 0; pass < accumulation; pass++) {
      const batch = batchFrom(text, { rows, length, seed: seed + 1009 * (step * 64 + pass) });
      const { value, grads } = this.#differentiate(batch, 1 / accumulation);
      await this.#parameters.giveGradients(optimizer, grads);
      sum += (await value.data())[0] ?? NaN;
      for (const tensor of [value, ...grads]) tensor.dispose();
    }
    await this.#device.settle();
    return sum;
  }

  #differentiate(batch: ByteBatch, scale: number) {
    return this.#tf.tidy(() =>
      this.#tf.valueAndGrads((...tensors) => {
        const byName = new Map(this.#names.map((name, at) => [name, tensors[at]]));
        const find = (name: string): TfTensor =>
          byName.get(name) ?? fail('invariant', `the model has no parameter ${name}`);
        return this.#model.loss(find, batch, scale);
      })(this.#parameters.tensors),
    );
  }

  dispose(): void {
    this.#model.dispose();
    this.#parameters.dispose();
  }
}

const now = (): number => performance.now();

/** The optimizer of a run; its memory and its trace are the caller's. */
function openOptimizer(
  device: VramDevice,
  options: TrainOptions,
  memory: MemoryResource,
  trace: TraceSink,
): Promise<OffloadedOptimizer> {
  const { model, seed, steps, schedule, learningRate: peak = 0.003 } = options;
  const totalSteps = options.plannedSteps ?? steps;
  const warmupSteps = Math.ceil(totalSteps / 10);
  const state = options.state ?? { parameters: firstParameters(model, seed) };
  return createOptimizer(device, schedule, state, {
    ...{ memory, now, trace, clipNorm: 1 },
    learningRate: warmupCosine({ peak, warmupSteps, totalSteps }),
    adam: { weightDecay: 0.1, beta2: 0.95 },
  });
}

/**
 * Trains.
 * @throws VramError `out-of-memory` where the plan does not fit `deviceBytes`; `aborted`; what the
 * optimizer throws.
 */
export async function train(
  device: VramDevice,
  tf: Tf,
  options: TrainOptions,
): Promise<TrainResult> {
  const { steps, deviceBytes = Infinity, save, saveEvery = 50, signal } = options;
  const { sink, note } = activationsMeter(options.trace, now);
  const traced = tracedResource(device.memory, sink, { now });
  const limited = limitedResource(traced, { limitBytes: deviceBytes });
  const optimizer = await openOptimizer(device, options, limited, sink);
  let run: Run | undefined;
  try {
    run = new Run(device, tf, options, traced);
    const done: TrainedStep[] = [];
    for (let step = optimizer.stepCount + 1; step <= steps; step++) {
      const start = now();
      const loss = await run.passes(optimizer, step);
      const { numBytesAllocatedInGPU } = tf.memory();
      note(numBytesAllocatedInGPU);
      const modelMs = now() - start;
      sink({ type: 'phase', timeMs: start, durationMs: modelMs, label: 'forward and backward' });
      const { gradientNorm } = await optimizer.step(signal === undefined ? {} : { signal });
      const optimizerMs = now() - start - modelMs;
      done.push({ step, loss, gradientNorm, modelMs, optimizerMs });
      options.onStep?.({ step, loss, gradientNorm, modelMs, optimizerMs });
      if (step % saveEvery === 0) await save?.(await optimizer.readState());
    }
    return { steps: done, state: await optimizer.readState() };
  } finally {
    run?.dispose();
    await optimizer.dispose();
    await device.settle();
    limited.dispose();
    traced.dispose();
  }
}

/**
 * Does offloading change what is learnt? The same training under several plans, step by step beside
 * the run that has everything on the device.
 *
 * What counts as noise is measured, not chosen: a run without offloading whose first parameters
 * differ by one rounding each is as far off as rounding alone brings it.
 */
import type { VramDevice } from '@vramkit/core';
import {
  deepOptimizerStates,
  gpuOnly,
  zeroOffload,
  type Schedule,
  type StateLayout,
} from '@vramkit/offload';
import type { Tf } from './tfjs.js';
import { firstParameters, train, type TrainOptions, type TrainResult } from './trainer.js';

/** A run beside the one without offloading. */
export interface ComparedRun {
  readonly name: string;
  readonly losses: readonly number[];
  /** Largest difference of a loss, nats. */
  readonly largestDifference: number;
  /** Largest difference of a parameter at the end. */
  readonly parameterDifference: number;
  /** Milliseconds of a step, the median: the model's part and the optimizer's. */
  readonly modelMs: number;
  readonly optimizerMs: number;
}

/** What {@link compare} found. */
export interface Comparison {
  /** The run without offloading comes first. */
  readonly runs: readonly ComparedRun[];
  /** Largest difference of the run that started one rounding apart, nats. */
  readonly noise: number;
}

/** Each parameter moved to the next f32, up or down in turn. */
export function oneRoundingApart(values: Float32Array): Float32Array {
  const moved = values.slice();
  const bits = new Int32Array(moved.buffer);
  for (let at = 0; at < bits.length; at++) bits[at] = (bits[at] ?? 0) ^ 1;
  return moved;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN;
}

function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let most = 0;
  for (let at = 0; at < a.length; at++) {
    most = Math.max(most, Math.abs((a[at] ?? NaN) - (b[at] ?? NaN)));
  }
  return most;
}

/** Trains under every plan. `report` hears of each run as it starts. */
export async function compare(
  device: VramDevice,
  tf: Tf,
  layout: StateLayout,
  options: Omit<TrainOptions, 'schedule'>,
  report: (name: string) => void,
): Promise<Comparison> {
  const plans: [name: string, schedule: Schedule, state?: TrainOptions['state']][] = [
    ['no offload', gpuOnly(layout)],
    ['every 2nd streamed', deepOptimizerStates(layout, { stride: 2 })],
    ['every 3rd streamed, 30 % stay', deepOptimizerStates(layout, { stride: 3, ratio: 0.7 })],
    ['all streamed', deepOptimizerStates(layout, { stride: 1 })],
    ['all on the CPU', zeroOffload(layout)],
    [
      'one rounding apart',
      gpuOnly(layout),
      { parameters: oneRoundingApart(firstParameters(options.model, options.seed)) },
    ],
  ];
  const runs: ComparedRun[] = [];
  let first: TrainResult | undefined;
  for (const [name, schedule, state] of plans) {
    report(name);
    const own = state === undefined ? options : { ...options, state };
    const result = await train(device, tf, { ...own, schedule });
    first ??= result;
    const losses = result.steps.map(({ loss }) => loss);
    const reference = first.steps.map(({ loss }) => loss);
    runs.push({
      name,
      losses,
      largestDifference: distance(losses, reference),
      parameterDifference: distance(result.state.parameters, first.state.parameters),
      modelMs: median(result.steps.map(({ modelMs }) => modelMs)),
      optimizerMs: median(result.steps.map(({ optimizerMs }) => optimizerMs)),
    });
  }
  return { runs, noise: runs.at(-1)?.largestDifference ?? NaN };
}

/** Rows of a table: losses at some steps, and the differences. */
export function comparisonTable({ runs, noise }: Comparison): string[][] {
  const steps = runs[0]?.losses.length ?? 0;
  const shown = [1, 50, 100, 150, steps].filter((step) => step <= steps);
  const marks = [...new Set(shown)];
  return [
    ['run', '', ...marks.map((step) => `step ${step}`), 'most apart', 'model, ms', 'optimizer, ms'],
    ...runs.map(({ name, losses, largestDifference, modelMs, optimizerMs }) => [
      name,
      largestDifference <= noise ? '' : 'ABOVE NOISE',
      ...marks.map((step) => (losses[step - 1] ?? NaN).toFixed(6)),
      largestDifference.toExponential(1),
      modelMs.toFixed(1),
      optimizerMs.toFixed(1),
    ]),
  ];
}

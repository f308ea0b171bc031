/**
 * Training: AdamW of `@vramkit/offload` with its state mostly on the host, gradients by
 * TensorFlow.js on the same device and out of the same budget.
 */
import type { VramDevice } from '@vramkit/core';
import {
  choosePlan,
  closeTfjs,
  openTfjs,
  stateBytes,
  train,
  type RunCheckpoints,
  type TrainedStep,
} from '@vramkit/example-train';
import { PARAMETER_COUNT, SHAPE } from './weights.js';

/** Bytes that each step learns from. */
const BATCH = { rows: 1, length: 64 };
const SUBGROUPS = 32;

/** What the training gave. */
export interface TrainFigures {
  readonly planner: string;
  readonly parameterCount: number;
  /** Bytes of parameters and both moments, and what of them may be on the device at once. */
  readonly stateBytes: number;
  readonly deviceBytes: number;
  readonly hostBytes: number;
  readonly bytesPerStep: number;
  /** Step that the run went on from; 0 for the published weights. */
  readonly firstStep: number;
  readonly steps: readonly TrainedStep[];
}

type State = NonNullable<Awaited<ReturnType<RunCheckpoints['latest']>>>;

/** Where a run begins: the published weights, or what a store has. */
export type FirstState = Pick<State, 'parameters'> & Partial<State>;

/**
 * Trains `steps` more steps.
 * @throws VramError `out-of-memory` naming what did not fit the device's budget.
 */
export async function trainStage(
  device: VramDevice,
  options: {
    readonly text: Uint8Array;
    readonly steps: number;
    readonly state: FirstState;
    readonly log: (line: string) => void;
  },
): Promise<{ readonly figures: TrainFigures; readonly state: State }> {
  const { text, steps, state, log } = options;
  const subgroupSize = Math.ceil(PARAMETER_COUNT / SUBGROUPS);
  const layout = { parameterCount: PARAMETER_COUNT, subgroupSize, flushDType: 'bf16' } as const;
  const deviceBytes = stateBytes(PARAMETER_COUNT) - 1;
  const planned = { stride: 2, ratio: 1, deviceBytes, softwareCores: 0 };
  const schedule = await choosePlan(device, layout, { ...planned, planner: 'deepOptimizerStates' });
  const firstStep = state.step ?? 0;
  const tf = await openTfjs(device, log);
  try {
    const result = await train(device, tf, {
      ...{ model: SHAPE, text, schedule, deviceBytes, state, ...BATCH },
      ...{ steps: firstStep + steps, learningRate: 5e-4 },
      onStep: ({ step, loss }) => {
        const done = step - firstStep;
        if (done === 1 || done % 10 === 0 || done === steps) {
          log(`step ${step}: loss ${loss.toFixed(4)}`);
        }
      },
    });
    const { footprint } = schedule;
    const figures: TrainFigures = {
      planner: schedule.planner,
      parameterCount: PARAMETER_COUNT,
      stateBytes: stateBytes(PARAMETER_COUNT),
      deviceBytes: footprint.deviceBytes + footprint.stagingBytes,
      hostBytes: footprint.hostBytes,
      bytesPerStep: BATCH.rows * BATCH.length,
      firstStep,
      steps: result.steps,
    };
    return { figures, state: result.state };
  } finally {
    closeTfjs(tf);
  }
}

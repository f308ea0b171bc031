/**
 * What the released logs of Deep Optimizer States say about 20B parameters, and the runs of the
 * simulator that answer the same questions. Raw logs: repository mauryaavinash95/deep-optimizer-
 * states-results; the paper is arXiv 2410.21316.
 *
 * A rank of four is simulated with a quarter of each rate. Gradients reach the host widened by the
 * device where the flush is asynchronous (f32 over the link) and widened by the host where it
 * blocks.
 */
import {
  buildIteration,
  deepOptimizerStates,
  rankShare,
  simulate,
  twinFlow,
  type IterationOptions,
  type Machine,
  type Schedule,
} from '../index.js';

const RANKS = 4;
const BF16 = {
  parameterCount: 20e9 / RANKS,
  subgroupSize: 100e6,
  parameterDType: 'bf16',
  flushDType: 'bf16',
} as const;
const WIDENED_ON_DEVICE = { ...BF16, flushDType: 'f32' } as const;

/** Update throughput over stride, billions of parameters per second, by machine. */
export const STRIDE_LOGS = {
  h100: { 2: 15.3, 3: 14.9, 4: 14.2, 6: 13.3, 8: 13.0, 10: 12.7 },
  a100: { 2: 5.75, 3: 5.57, 4: 5.29, 6: 5.09, 8: 5.07, 10: 5.06 },
} as const;

/** Throughput without streaming and with blocking pushes, billions of parameters per second. */
export const BLOCKING_LOGS = { h100: 8.8, a100: 3.8 } as const;

/** Milliseconds per iteration on 4xH100 by share of subgroups on the CPU. */
export const RATIO_LOGS = [
  { ratio: 1.0, deepSpeed: 7288, flush: 3811, interleaved: 2971 },
  { ratio: 0.9, deepSpeed: 6529, flush: 3469, interleaved: 2725 },
  { ratio: 0.8, deepSpeed: 5883, flush: 3242, interleaved: 2617 },
  { ratio: 0.7, deepSpeed: 5308, flush: 3026, interleaved: 2466 },
  { ratio: 0.6, deepSpeed: 4833, flush: 2776, interleaved: 2322 },
  { ratio: 0.5, deepSpeed: 4258, flush: 2553, interleaved: 2213 },
] as const;

/** Mean backward time of the six asynchronous runs, ms. */
const BACKWARD_MS = 803;
/** Total less backward less update of the row with ratio 0.5, ms. */
const OUTSIDE_MS = { deepSpeed: 564, flush: 623, interleaved: 767 };

const throughput = (schedule: Schedule, machine: Machine): number =>
  BF16.parameterCount / simulate(schedule.operations, machine).totalMs / 1e6;

/** Predicted update throughput of all ranks, billions of parameters per second. */
export function predictStride(node: Machine, stride: number): number {
  return RANKS * throughput(deepOptimizerStates(BF16, { stride }), rankShare(node, RANKS));
}

/** Predicted throughput without streaming and with blocking pushes. */
export function predictBlocking(node: Machine): number {
  return (
    RANKS * throughput(twinFlow(BF16, { ratio: 1, blockingPush: true }), rankShare(node, RANKS))
  );
}

/** Predicted milliseconds per iteration of the three systems at a ratio. */
export function predictRatio(
  node: Machine,
  ratio: number,
): { deepSpeed: number; flush: number; interleaved: number } {
  const machine = rankShare(node, RANKS);
  const total = (schedule: Schedule, options: IterationOptions): number => {
    const iteration = buildIteration(schedule, { backwardMs: BACKWARD_MS, ...options });
    return simulate(iteration.operations, machine, iteration.times).totalMs;
  };
  const split = { ratio, blockingPush: true };
  return {
    deepSpeed: total(twinFlow(BF16, split), {
      forwardMs: OUTSIDE_MS.deepSpeed,
      blockingFlush: true,
    }),
    flush: total(twinFlow(WIDENED_ON_DEVICE, split), { forwardMs: OUTSIDE_MS.flush }),
    interleaved: total(deepOptimizerStates(WIDENED_ON_DEVICE, { ratio, stride: 2 }), {
      forwardMs: OUTSIDE_MS.interleaved,
    }),
  };
}

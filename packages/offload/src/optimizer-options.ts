/**
 * Settings of an optimizer, and their check: a number that is none would not fail but turn all
 * state into NaN.
 */
import {
  assertArgument,
  checkInteger,
  type MemoryResource,
  type SpawnWorker,
  type TraceSink,
} from '@vramkit/core';
import type { AdamOptions } from './adam/adam.js';
import type { LearningRate } from './learning-rate.js';
import type { LossScaleOptions } from './loss-scale.js';

/** Options of {@link createOptimizer}. */
export interface OptimizerOptions {
  /** Settings of Adam; `learningRate` here is a constant one. */
  readonly adam?: AdamOptions;
  /** Rate by step; overrides the constant. Default: none. */
  readonly learningRate?: LearningRate;
  /** Largest global norm of the gradient; longer ones are scaled down to it. Default: no limit. */
  readonly clipNorm?: number;
  /** Scales losses to save 16-bit gradients; the caller multiplies the loss. Default: none. */
  readonly lossScale?: LossScaleOptions;
  /** Threads of the CPU's kernels. Default: 1. */
  readonly threads?: number;
  /**
   * Where device and staging memory comes from; staging buffers are mapped, so it must give buffers
   * of their own for them. Default: the device's budgeted memory.
   */
  readonly memory?: MemoryResource;
  /** Receives a span per operation. Default: none, which costs nothing. */
  readonly trace?: TraceSink;
  /** Clock of the trace, milliseconds. Default: `performance.now`. */
  readonly now?: () => number;
  /** Starts threads. Default: Node's worker threads or a page's workers. */
  readonly spawn?: SpawnWorker;
}

/** @throws VramError `invalid-argument` for a setting out of its range; those of Adam apart. */
export function checkOptimizerOptions({ clipNorm, lossScale, threads }: OptimizerOptions): void {
  checkInteger('threads', threads ?? 1, 1);
  assertArgument(clipNorm === undefined || clipNorm > 0, `clipNorm ${clipNorm} is not above 0`);
  if (lossScale === undefined) return;
  const { initial = 1, growth = 1, growthSteps = 1, backoff = 1, least = 1 } = lossScale;
  checkScale('lossScale.initial', initial);
  checkScale('lossScale.least', least);
  assertArgument(growth >= 1 && growth < Infinity, `lossScale.growth ${growth} is below 1`);
  assertArgument(backoff > 0 && backoff <= 1, `lossScale.backoff ${backoff} is not in (0, 1]`);
  checkInteger('lossScale.growthSteps', growthSteps, 1);
}

/** @throws VramError `invalid-argument` where no gradient can have been multiplied by it. */
export function checkScale(name: string, scale: number): void {
  assertArgument(scale > 0 && scale < Infinity, `${name} ${scale} is not above 0 and finite`);
}

/** @throws VramError `invalid-argument` where a step cannot be made at that rate. */
export function checkRate(rate: number, step: number): number {
  assertArgument(rate >= 0 && rate < Infinity, `the learning rate of step ${step} is ${rate}`);
  return rate;
}

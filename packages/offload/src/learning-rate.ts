/** Learning rates as functions of the step; an optimizer takes any function of this kind. */
import { assertArgument } from '@vramkit/core';

/** The rate of a step; the first step is 1. */
export type LearningRate = (step: number) => number;

/** Options of {@link warmupCosine}. */
export interface WarmupCosineOptions {
  /** Rate at the end of the warm-up. */
  readonly peak: number;
  /** Rate at the end. Default: 0. */
  readonly floor?: number;
  /** Steps in which the rate rises from 0 to `peak`. Default: 0. */
  readonly warmupSteps?: number;
  /** Steps after which the rate stays at `floor`. */
  readonly totalSteps: number;
}

/** Rises linearly, then falls along half a cosine. */
export function warmupCosine(options: WarmupCosineOptions): LearningRate {
  const { peak, floor = 0, warmupSteps = 0, totalSteps } = options;
  assertArgument(totalSteps > warmupSteps, `${totalSteps} steps end within the warm-up`);
  return (step) => {
    if (step < warmupSteps) return (peak * step) / warmupSteps;
    const done = Math.min(1, (step - warmupSteps) / (totalSteps - warmupSteps));
    return floor + ((peak - floor) * (1 + Math.cos(Math.PI * done))) / 2;
  };
}

/**
 * Dynamic loss scaling (Micikevicius et al., 2018): losses are multiplied so that 16-bit gradients
 * do not vanish; a step with a gradient that is not finite is skipped and halves the scale, a run
 * of good steps doubles it. A value, not an object: each step gives the next one.
 */

/** Options of loss scaling. */
export interface LossScaleOptions {
  /** Scale of the first step. Default: 65536. */
  readonly initial?: number;
  /** Factor after `growthSteps` good steps. Default: 2. */
  readonly growth?: number;
  /** Good steps in a row before the scale grows. Default: 2000. */
  readonly growthSteps?: number;
  /** Factor after a skipped step. Default: 0.5. */
  readonly backoff?: number;
  /** Least scale. Default: 1. */
  readonly least?: number;
}

/** Where loss scaling stands. */
export interface LossScale {
  readonly scale: number;
  /** Good steps since the scale last changed. */
  readonly goodSteps: number;
}

/** The state after a step that was good or skipped. */
export function nextLossScale(
  state: LossScale,
  good: boolean,
  options: LossScaleOptions,
): LossScale {
  const { growth = 2, growthSteps = 2000, backoff = 0.5, least = 1 } = options;
  if (!good) return { scale: Math.max(least, state.scale * backoff), goodSteps: 0 };
  const goodSteps = state.goodSteps + 1;
  if (goodSteps < growthSteps) return { scale: state.scale, goodSteps };
  return { scale: state.scale * growth, goodSteps: 0 };
}

/**
 * What gradients are multiplied by in an update: the loss scale taken out, and the norm brought
 * down to `clipNorm` where it exceeds it. The small term keeps the quotient finite, as in
 * DeepSpeed.
 */
export function gradientScaleOf(scaledNorm: number, scale: number, clipNorm: number): number {
  const excess = (scaledNorm / scale + 1e-6) / clipNorm;
  return 1 / (scale * Math.max(1, excess));
}

/**
 * Adam and AdamW: the settings, and the numbers of one step that every kernel takes.
 *
 * ```
 *  g' = g * gradientScale + l2 * p
 *  m  = beta1 * m + (1 - beta1) * g'
 *  v  = beta2 * v + (1 - beta2) * g' * g'
 *  p  = p * decay - stepSize * m / (sqrt(v) * rootScale + epsilon)
 * ```
 *
 * With bias correction rootScale = 1 / sqrt(1 - beta2^t) and stepSize = rate / (1 - beta1^t), so
 * epsilon is added after the correction of v, as in PyTorch. AdamW decays by 1 - rate *
 * weightDecay; Adam adds weightDecay * p to the gradient. Sources: Kingma and Ba, 2015; Loshchilov
 * and Hutter, 2019.
 */
import { assertArgument } from '@vramkit/core';

/** Options of Adam; rates may change from step to step, the rest may not. */
export interface AdamOptions {
  /** Learning rate. Default: 0.001. */
  readonly learningRate?: number;
  /** Decay of the first moment. Default: 0.9. */
  readonly beta1?: number;
  /** Decay of the second moment. Default: 0.999. */
  readonly beta2?: number;
  /** Added to the root of the second moment. Default: 1e-8. */
  readonly epsilon?: number;
  /** Weight decay. Default: 0. */
  readonly weightDecay?: number;
  /** `'adamw'` decays the parameters, `'adam'` adds to the gradient. Default: 'adamw'. */
  readonly mode?: 'adamw' | 'adam';
  /** Whether moments are corrected for their start at zero. Default: true. */
  readonly biasCorrection?: boolean;
}

/** The numbers of one step, as the kernels take them; f32 after {@link adamStep}. */
export interface AdamStep {
  readonly beta1: number;
  readonly beta2: number;
  /** 1 - beta1. */
  readonly rest1: number;
  /** 1 - beta2. */
  readonly rest2: number;
  readonly epsilon: number;
  readonly rootScale: number;
  readonly stepSize: number;
  readonly decay: number;
  readonly l2: number;
  readonly gradientScale: number;
}

/** Names of {@link AdamStep} in the order in which kernels take them. */
export const ADAM_STEP_NAMES = [
  'beta1',
  'beta2',
  'rest1',
  'rest2',
  'epsilon',
  'rootScale',
  'stepSize',
  'decay',
  'l2',
  'gradientScale',
] as const satisfies readonly (keyof AdamStep)[];

/** Fills in the defaults. @throws VramError `invalid-argument` for a setting out of its range. */
export function completeAdam(options: AdamOptions): Required<AdamOptions> {
  const complete = {
    learningRate: 1e-3,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: 0,
    mode: 'adamw' as const,
    biasCorrection: true,
    ...options,
  };
  const { learningRate, beta1, beta2, epsilon, weightDecay } = complete;
  assertArgument(
    learningRate >= 0 && learningRate < Infinity,
    `learningRate ${learningRate} is not a finite number from 0 on`,
  );
  assertArgument(beta1 >= 0 && beta1 < 1, `beta1 ${beta1} is not in [0, 1)`);
  assertArgument(beta2 >= 0 && beta2 < 1, `beta2 ${beta2} is not in [0, 1)`);
  const isPositive = Math.fround(epsilon) > 0 && epsilon < Infinity;
  assertArgument(isPositive, `epsilon ${epsilon} is not a finite number above 0 in f32`);
  assertArgument(
    weightDecay >= 0 && weightDecay < Infinity,
    `weightDecay ${weightDecay} is not a finite number from 0 on`,
  );
  return complete;
}

/**
 * The numbers of step `step` (the first is 1), rounded to f32 once, so that every kernel starts
 * from the same ones.
 */
export function adamStep(
  options: Required<AdamOptions>,
  step: number,
  gradientScale = 1,
): AdamStep {
  const { learningRate, beta1, beta2, epsilon, weightDecay, mode, biasCorrection } = options;
  const f32 = Math.fround;
  return {
    beta1: f32(beta1),
    beta2: f32(beta2),
    rest1: f32(1 - beta1),
    rest2: f32(1 - beta2),
    epsilon: f32(epsilon),
    rootScale: f32(biasCorrection ? 1 / Math.sqrt(1 - beta2 ** step) : 1),
    stepSize: f32(biasCorrection ? learningRate / (1 - beta1 ** step) : learningRate),
    decay: f32(mode === 'adamw' ? 1 - learningRate * weightDecay : 1),
    l2: f32(mode === 'adam' ? weightDecay : 0),
    gradientScale: f32(gradientScale),
  };
}

/**
 * The definition of an Adam step: what the WGSL and the WebAssembly kernels are compared with.
 * Arithmetic and state are f64. Takes only the constants of {@link AdamStep}, which are f32.
 */
import type { AdamStep } from './adam.js';

/** Parameters and moments, updated in place; all of one length. */
export interface AdamState {
  readonly parameters: Float64Array;
  readonly firstMoment: Float64Array;
  readonly secondMoment: Float64Array;
}

/** One step over all elements; see adam.ts for the formulas. */
export function adamCpu(state: AdamState, gradient: ArrayLike<number>, step: AdamStep): void {
  const { parameters, firstMoment, secondMoment } = state;
  for (let i = 0; i < parameters.length; i++) {
    const p = parameters[i] ?? 0;
    const g = (gradient[i] ?? 0) * step.gradientScale + step.l2 * p;
    const m = step.beta1 * (firstMoment[i] ?? 0) + step.rest1 * g;
    const v = step.beta2 * (secondMoment[i] ?? 0) + step.rest2 * g * g;
    firstMoment[i] = m;
    secondMoment[i] = v;
    parameters[i] =
      p * step.decay - (step.stepSize * m) / (Math.sqrt(v) * step.rootScale + step.epsilon);
  }
}

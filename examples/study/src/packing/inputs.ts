/** What the study asks of the activations that a model has on the calibration windows. */
import type { Replaceable } from './replaceable-model.js';

/** Answers for one model. */
export interface ModelInputs {
  /** Second moments of what a matrix multiplies, [columns, columns]. */
  momentsOf(tensor: Replaceable): Promise<Float64Array>;
  /** Tokens that used a unit; `undefined` where all tokens use all units. */
  counts(): Promise<ReadonlyMap<string, number> | undefined>;
}

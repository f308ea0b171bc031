/**
 * What the experts of a mixture multiply on the calibration windows, and how many tokens each gets:
 * one run for all.
 */
import { calibrate } from '@vramkit/example-moe-pack';
import type { ModelInputs } from './inputs.js';
import type { ReplaceableModel } from './replaceable-model.js';

/** Inputs over the windows; runs when first asked. Weights have to be those of the file then. */
export function expertInputs(
  model: ReplaceableModel,
  windows: readonly Uint32Array[],
): ModelInputs {
  let pending: ReturnType<typeof calibrate> | undefined;
  const calibration = (): ReturnType<typeof calibrate> =>
    (pending ??= calibrate(model.device, model.model, windows));
  return {
    momentsOf: async ({ name, unit }) => {
      const found = (await calibration()).moments.get(unit);
      const moments = name.endsWith('.down') ? found?.inner : found?.input;
      if (moments === undefined) throw new RangeError(`no inputs of ${name}`);
      return moments;
    },
    counts: async () => (await calibration()).counts,
  };
}

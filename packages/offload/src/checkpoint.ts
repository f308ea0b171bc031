/**
 * Optimizer state as tensors of a checkpoint and back, for `Checkpoints` of `@vramkit/storage` or
 * any other store of named arrays: parameters and both moments as `F32`, the rest as plain JSON.
 */
import { assertArgument, fail } from '@vramkit/core';
import type { OptimizerState } from './optimizer.js';

/** One named array; the shape that `Checkpoints.save` takes. */
export interface StateTensor {
  readonly name: string;
  readonly dtype: 'F32';
  readonly shape: readonly number[];
  /** Little endian; a view of the state's own memory. */
  readonly bytes: Uint8Array;
}

/** What belongs to the state and is no array; plain JSON. */
export interface StateMetadata {
  readonly step: number;
  readonly lossScale: OptimizerState['lossScale'];
}

const NAMES = ['parameters', 'firstMoment', 'secondMoment'] as const;

/** The arrays and the rest of a state; nothing is copied. */
export function stateToTensors(state: OptimizerState): {
  readonly tensors: StateTensor[];
  readonly metadata: { readonly optimizer: StateMetadata };
} {
  const tensors = NAMES.map((name): StateTensor => {
    const { buffer, byteOffset, byteLength, length } = state[name];
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    return { name, dtype: 'F32', shape: [length], bytes };
  });
  const { step, lossScale } = state;
  return { tensors, metadata: { optimizer: { step, lossScale } } };
}

/**
 * A state from what {@link stateToTensors} gave, whatever plan it came from.
 * @param read Gives the bytes of a tensor by name.
 * @throws VramError `corrupt-data` where the metadata has no state; `invalid-argument` where arrays
 * differ in length; whatever `read` rejects with.
 */
export async function stateFromTensors(
  metadata: Readonly<Record<string, unknown>>,
  read: (name: string) => Promise<Uint8Array>,
): Promise<OptimizerState> {
  // Checked member by member below.
  const { step, lossScale } = (metadata['optimizer'] ?? {}) as Partial<StateMetadata>;
  const { scale, goodSteps } = lossScale ?? {};
  if (
    !Number.isSafeInteger(step) ||
    step === undefined ||
    typeof scale !== 'number' ||
    typeof goodSteps !== 'number'
  ) {
    return fail('corrupt-data', 'the metadata of the checkpoint hold no optimizer state');
  }
  const arrays = await Promise.all(
    NAMES.map(async (name) => new Float32Array(new Uint8Array(await read(name)).buffer)),
  );
  const [parameters, firstMoment, secondMoment] = arrays;
  assertArgument(
    parameters !== undefined &&
      firstMoment?.length === parameters.length &&
      secondMoment?.length === parameters.length,
    'the arrays of the checkpoint differ in length',
  );
  return { step, lossScale: { scale, goodSteps }, parameters, firstMoment, secondMoment };
}

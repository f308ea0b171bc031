/** Checkpoints whose tensors follow from their step, so that any of them can be judged alone. */
import { Checkpoints, type BlobStore, type CheckpointTensor } from '@vramkit/storage';
import { testBytes } from '@vramkit/storage/testing';

/** Checkpoints of `prefix` with several small shards. */
export function checkpointsOf(store: BlobStore, prefix = 'checkpoints/'): Checkpoints {
  return new Checkpoints(store, { prefix, shardBytes: 100_000, parallel: 3 });
}

/** The name of a step; names order as steps do. */
export function stepName(step: number): string {
  return `step-${String(step).padStart(8, '0')}`;
}

/** Tensors of a step. */
export function stepTensors(step: number): CheckpointTensor[] {
  return [250_000, 1200, 100_000, 0, 100_004].map((size, index) => ({
    name: `tensor.${index}`,
    dtype: 'F32',
    shape: [size / 4],
    bytes: testBytes(size, step * 8 + index + 1),
  }));
}

/**
 * Reads the last complete checkpoint and compares every byte with what its step says.
 * @returns Its step, or 0 where there is none.
 */
export async function verifyLatest(checkpoints: Checkpoints): Promise<number> {
  const manifest = await checkpoints.latest();
  if (manifest === undefined) return 0;
  await checkpoints.verify(manifest);
  const step = Number(manifest.metadata['step']);
  if (manifest.name !== stepName(step)) throw new Error(`${manifest.name} says step ${step}`);
  for (const { name, bytes } of stepTensors(step)) {
    const found = await checkpoints.read(manifest, name);
    if (Buffer.compare(found, bytes) !== 0) throw new Error(`${name} of step ${step} differs`);
  }
  return step;
}

/** Saves the step after the last complete one, and the next, until something throws. */
export async function saveSteps(
  checkpoints: Checkpoints,
  first: number,
  say: (what: 'saving' | 'saved', step: number) => void = () => undefined,
): Promise<never> {
  for (let step = first; ; step += 1) {
    say('saving', step);
    await checkpoints.save(stepName(step), stepTensors(step), { metadata: { step } });
    say('saved', step);
    await checkpoints.prune({ keep: 2 });
  }
}

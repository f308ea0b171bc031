/** Saving and resuming a run by `Checkpoints` of `@vramkit/storage`, in a folder. */
import { stateFromTensors, stateToTensors, type OptimizerState } from '@vramkit/offload';
import { Checkpoints, posixStore, type BlobStore } from '@vramkit/storage';

/** Checkpoints kept. */
const KEEP = 2;

/** A run's checkpoints. */
export interface RunCheckpoints {
  readonly save: (state: OptimizerState) => Promise<void>;
  /** The newest state, or nothing. */
  readonly latest: () => Promise<OptimizerState | undefined>;
}

/** The checkpoints in a store. */
export function checkpointsIn(store: BlobStore): RunCheckpoints {
  const checkpoints = new Checkpoints(store);
  return {
    save: async (state) => {
      const { tensors, metadata } = stateToTensors(state);
      const name = `step-${String(state.step).padStart(8, '0')}`;
      await checkpoints.save(name, tensors, { metadata: { ...metadata } });
      await checkpoints.prune({ keep: KEEP });
    },
    latest: async () => {
      const manifest = await checkpoints.latest();
      if (manifest === undefined) return undefined;
      return stateFromTensors(manifest.metadata, (name) => checkpoints.read(manifest, name));
    },
  };
}

/** The checkpoints in a folder, which is made where it is missing. */
export async function checkpointsInFolder(folder: string): Promise<RunCheckpoints> {
  return checkpointsIn(await posixStore({ folder }));
}

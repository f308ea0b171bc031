/** The store of prefixes behind the server. */
import { openKvStore, type KvStoreOptions, type ModelFile } from '@vramkit/example-runtime';
import { timedStore, type BlobStore } from '@vramkit/storage';

/** Options of {@link openPrefixes}. */
export interface PrefixOptions {
  /** Tokens of a block. */
  readonly blockSize: number;
  /** Most bytes in the store. */
  readonly budgetBytes: number;
  /** Names the model, where it is known already. */
  readonly model?: string;
  /** The longest that one call of the store may take. Default: 5 s. */
  readonly timeoutMs?: number;
}

/**
 * Prefixes in a store that may hang: a call that takes too long is a miss, and the engine leaves
 * the store alone for a while, so that not every request waits for it.
 */
export function openPrefixes(
  store: BlobStore,
  file: ModelFile,
  options: PrefixOptions,
): Promise<KvStoreOptions> {
  const { timeoutMs = 5000, ...others } = options;
  return openKvStore(timedStore(store, { timeoutMs }), file, others);
}

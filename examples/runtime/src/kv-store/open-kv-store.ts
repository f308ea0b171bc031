/** Opens the KV tier of a blob store for one model and one shape of cache. */
import { createHash } from 'node:crypto';
import { bytesPerBlock } from '@vramkit/paged-attention';
import { KvTier, type BlobStore } from '@vramkit/storage';
import { lru } from '@vramkit/eviction';
import type { ModelFile } from '../model-file.js';
import type { KvStoreOptions } from './prefix-store.js';

/** Options of {@link openKvStore}. */
export interface OpenKvStoreOptions {
  /** Tokens of a block. Default: 16. */
  readonly blockSize?: number;
  /** Element type of K and V. Default: 'f16'. */
  readonly kvDtype?: 'f32' | 'f16';
  /** Most bytes in the store; what goes first is what was used least recently. Default: 8 GiB. */
  readonly budgetBytes?: number;
  /** Most bytes in this process. Default: 256 MiB. */
  readonly hostBytes?: number;
  /** Names the model in place of {@link modelFingerprint}, which reads all weights once. */
  readonly model?: string;
}

/** Bytes that one step of the fingerprint reads. */
const READ_BYTES = 2 ** 23;

/**
 * SHA-256 of a model's numbers and of every weight: equal models compute equal K and V, and a model
 * that was changed finds nothing. Reads the file once, at the speed of the hash.
 */
export async function modelFingerprint(file: ModelFile): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(file.config));
  for (const [name, tensor] of file.tensors) {
    const { rows, columns, rowBytes, type } = tensor;
    hash.update(JSON.stringify([name, type, rows, columns]));
    const step = Math.max(1, Math.floor(READ_BYTES / rowBytes));
    for (let row = 0; row < rows; row += step) {
      hash.update(await tensor.read(row, Math.min(step, rows - row)));
    }
  }
  return hash.digest('hex');
}

/**
 * The blocks of a model in a store, for an engine's `kvStore`; the store stays the caller's.
 * @throws VramError what the store throws while it is listed.
 */
export async function openKvStore(
  store: BlobStore,
  file: ModelFile,
  options: OpenKvStoreOptions = {},
): Promise<KvStoreOptions> {
  const { blockSize = 16, kvDtype: dtype = 'f16', budgetBytes = 2 ** 33 } = options;
  const { layers, kvHeads, headDim } = file.config;
  const identity = { model: options.model ?? (await modelFingerprint(file)), dtype, blockSize };
  const layout = { layers, kvHeads, headDim, blockSize, dtype, blockCount: 1 };
  const tier = await KvTier.open(store, {
    identity,
    blockBytes: bytesPerBlock(layout),
    host: { budgetBytes: options.hostBytes ?? 2 ** 28, policy: lru() },
    storage: { budgetBytes, policy: lru() },
  });
  return {
    identity,
    blocks: {
      match: (names) => Promise.resolve(tier.matchCount(names)),
      store: (name, block) => tier.store(name, block),
      load: (name) => tier.load(name),
    },
  };
}

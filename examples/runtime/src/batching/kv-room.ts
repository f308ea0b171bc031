/**
 * How large the KV cache of a batch engine can be within the budget of its device.
 *
 * The smallest engine is made and measured: what is left of the budget then is KV, but for what
 * grows with the cache or is taken by the first requests. That is bounded here, from above.
 */
import type { VramDevice } from '@vramkit/core';
import { bytesPerBlock } from '@vramkit/paged-attention';
import type { LanguageModel } from '../weights.js';
import { createBatchEngine, type BatchEngineOptions } from './batch-engine.js';

/** Norms that are gathered, readbacks of ids and of experts, alignment. */
const OTHER_BYTES = 2 * 1024 * 1024;

/** What a cache may take; see {@link measureKvRoom}. */
export interface KvRoom {
  /** Most tokens, whole blocks; infinite without a budget. */
  readonly tokens: number;
  /** Activations, scratch and readbacks beside the cache; 0 without a budget. */
  readonly besideBytes: number;
}

/**
 * The most `kvTokens` that an engine of these options can have beside what the device holds now.
 * @throws VramError `out-of-memory` where not even activations fit; what `createBatchEngine`
 * throws.
 */
export async function measureKvRoom(
  device: VramDevice,
  model: LanguageModel,
  options: Omit<BatchEngineOptions, 'kvTokens'>,
): Promise<KvRoom> {
  const { limitBytes } = device.memory.stats();
  if (!Number.isFinite(limitBytes)) return { tokens: limitBytes, besideBytes: 0 };
  const { layers, kvHeads, headDim, contextLength, vocabularySize } = model.config;
  const { blockSize = 16, kvDtype: dtype = 'f16', maxSequences = 32 } = options;
  const shape = { layers, kvHeads, headDim, blockSize, dtype };
  const before = takenBytes(device);
  const engine = createBatchEngine(device, model, { ...options, kvTokens: 1 });
  const engineBytes = takenBytes(device) - before;
  await engine.dispose();
  const leastKvBytes = 2 * bytesPerBlock({ ...shape, blockCount: 1 });
  const tableBytes = 4 * maxSequences * (contextLength / blockSize + 64);
  // Each request that samples reads a row of logits, into staging of a power of two.
  const logitBytes = maxSequences * 2 ** Math.ceil(Math.log2(4 * vocabularySize));
  const besideBytes = engineBytes - leastKvBytes + tableBytes + logitBytes + OTHER_BYTES;
  const freeBytes = limitBytes - before - besideBytes;
  const blocks = Math.floor(freeBytes / bytesPerBlock({ ...shape, blockCount: 1 }));
  // One of them is the null block, which no sequence gets.
  return { tokens: Math.max(0, blocks - 1) * blockSize, besideBytes: Math.ceil(besideBytes) };
}

function takenBytes(device: VramDevice): number {
  const { liveBytes, paddingBytes } = device.memory.stats();
  return liveBytes + paddingBytes;
}

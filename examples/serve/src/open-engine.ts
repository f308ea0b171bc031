/**
 * Weights and KV cache of the server, within `--gpu-budget`: what does not fit is refused with the
 * numbers that would.
 */
import { fail, isVramError, type VramDevice } from '@vramkit/core';
import {
  createBatchEngine,
  loadModel,
  measureKvRoom,
  type BatchEngine,
  type KvStoreOptions,
  type LanguageModel,
  type ModelFile,
} from '@vramkit/example-runtime';
import type { ServeOptions } from './options.js';

/** What {@link openEngine} takes of the command line, and the store of prefixes. */
export interface EngineOptions extends Pick<
  ServeOptions,
  'kvTokens' | 'maxSequences' | 'chunkTokens' | 'blockSize' | 'prefixCaching'
> {
  readonly kvStore: KvStoreOptions | undefined;
}

const MAX_DEFAULT_KV_TOKENS = 32_768;
/** A smaller cache than this is made only where it is asked for. */
const MIN_DEFAULT_KV_TOKENS = 256;

const megabytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/**
 * Loads all weights; the caller disposes them.
 * @throws VramError `out-of-memory` where they exceed the budget; what `loadModel` throws.
 */
export async function loadWeights(
  device: VramDevice,
  file: ModelFile,
  { experts, gpuBudgetBytes }: Pick<ServeOptions, 'experts' | 'gpuBudgetBytes'>,
): Promise<LanguageModel> {
  try {
    return await loadModel(device, file, experts === undefined ? {} : { experts });
  } catch (error) {
    if (gpuBudgetBytes === undefined || !isVramError(error, 'out-of-memory')) throw error;
    return fail(
      'out-of-memory',
      `the weights do not fit --gpu-budget ${megabytes(gpuBudgetBytes)}: they are about ` +
        `${megabytes(file.tensorBytes)} and the server keeps all layers on the device; raise the ` +
        'budget, or take the demo, which streams layers from the host',
      { kind: 'weights', gpuBudgetBytes, tensorBytes: file.tensorBytes },
    );
  }
}

/**
 * The engine, its cache as large as was asked for or as the budget allows; the caller disposes it.
 * @throws VramError `out-of-memory` where the cache does not fit; what `createBatchEngine` throws.
 */
export async function openEngine(
  device: VramDevice,
  model: LanguageModel,
  options: EngineOptions,
): Promise<BatchEngine> {
  const { maxSequences, chunkTokens, blockSize, prefixCaching, kvStore } = options;
  const sizes = { maxSequences, chunkTokens, blockSize, prefixCaching };
  const { liveBytes: weightBytes, limitBytes } = device.memory.stats();
  const { tokens, besideBytes } = await measureKvRoom(device, model, sizes).catch((error) => {
    if (!isVramError(error, 'out-of-memory')) throw error;
    return fail(
      'out-of-memory',
      `activations do not fit --gpu-budget ${megabytes(limitBytes)} beside weights of ` +
        `${megabytes(weightBytes)}; raise it, or lower --max-sequences or --chunk-tokens`,
      { kind: 'activations', limitBytes, weightBytes },
    );
  });
  const wanted = Math.min(4 * model.config.contextLength, MAX_DEFAULT_KV_TOKENS);
  const least = options.kvTokens ?? Math.min(wanted, MIN_DEFAULT_KV_TOKENS);
  if (least > tokens) {
    const most = tokens === 0 ? 'none' : `--kv-tokens at most ${tokens}`;
    fail(
      'out-of-memory',
      `a KV cache of ${least} tokens does not fit --gpu-budget ${megabytes(limitBytes)} beside ` +
        `weights of ${megabytes(weightBytes)} and activations of ${megabytes(besideBytes)}; ` +
        `${most} fits; fewer --max-sequences or --chunk-tokens leave more`,
      { kind: 'kv', limitBytes, weightBytes, besideBytes, tokens },
    );
  }
  const kvTokens = options.kvTokens ?? Math.min(wanted, tokens);
  return createBatchEngine(device, model, { ...sizes, kvTokens, kvStore });
}

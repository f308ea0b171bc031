/**
 * From what a user calls a model to a path on disk.
 *
 * A name of the catalog is looked up in the cache and fetched where it is not there; anything
 * else must be a path. Sources are tried in order; a source that fails is remembered, and only
 * when all have failed is the error raised, so that the caller can go on with `tiny-moe`, which
 * needs no network.
 */
import { isVramError, throwIfAborted, VramError } from '@vramkit/core';
import { rename, rm, stat } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheDirectory, createStaging, isIntact, requireIntact } from './cache.js';
import { REMOTE_MODELS, type RemoteModel } from './catalog.js';
import { hubSource } from './hub-source.js';
import type { ModelProgress, ModelSource } from './source.js';
import { wheelSource } from './wheel-source.js';

/** A model on disk. */
export interface ResolvedModel {
  /** Name in the catalog, or the path that was given. */
  readonly name: string;
  /** A `.gguf` or `.safetensors` file, or a folder with safetensors files and `config.json`. */
  readonly path: string;
  /** File format. */
  readonly kind: 'gguf' | 'safetensors';
}

/** Options of {@link resolveModel}. */
export interface ResolveModelOptions {
  /** Called while a model is fetched. */
  readonly onProgress?: ModelProgress;
  /** Stops the fetch; what was staged is removed. */
  readonly signal?: AbortSignal;
  /**
   * Folder for fetched models. Default: see {@link cacheDirectory}, by the process environment.
   */
  readonly cacheDirectory?: string;
  /** Where to fetch from, in order. Default: pip, then the Hugging Face hub. */
  readonly sources?: readonly ModelSource[];
}

/** Names that {@link resolveModel} knows. */
export const MODEL_NAMES: readonly string[] = [...Object.keys(REMOTE_MODELS), 'tiny-moe'];

/**
 * Finds `nameOrPath` on disk, fetching a model of the catalog into the cache first where needed.
 *
 * A cached file is verified on each call, which takes about 0.1 s per 100 MB.
 * @throws VramError `not-found` for an unknown name or path, and, `retryable`, where every
 * source has failed (`cause` is an `AggregateError` of their errors); `unsupported` for a file
 * of another format; `aborted` by the signal.
 */
export async function resolveModel(
  nameOrPath: string,
  options: ResolveModelOptions = {},
): Promise<ResolvedModel> {
  if (nameOrPath === 'tiny-moe') {
    const path = fileURLToPath(new URL('../tiny-moe', import.meta.url));
    return { name: nameOrPath, path, kind: 'safetensors' };
  }
  if (Object.hasOwn(REMOTE_MODELS, nameOrPath)) {
    const model = REMOTE_MODELS[nameOrPath];
    if (model !== undefined) {
      return { name: nameOrPath, path: await fetchModel(model, options), kind: 'gguf' };
    }
  }
  return resolvePath(nameOrPath);
}

/**
 * Path of a catalog model that is already in the cache and intact; `undefined` where it would
 * have to be fetched.
 */
export async function cachedModelPath(
  name: string,
  options: Pick<ResolveModelOptions, 'cacheDirectory' | 'signal'> = {},
): Promise<string | undefined> {
  const model = Object.hasOwn(REMOTE_MODELS, name) ? REMOTE_MODELS[name] : undefined;
  if (model === undefined) return undefined;
  const directory = options.cacheDirectory ?? (await cacheDirectory(process.env));
  const path = join(directory, model.fileName);
  return (await isIntact(path, model, options.signal)) ? path : undefined;
}

/** Path of `model` in the cache, fetched where it is not there or not intact. */
export async function fetchModel(
  model: RemoteModel,
  options: ResolveModelOptions = {},
): Promise<string> {
  const directory = options.cacheDirectory ?? (await cacheDirectory(process.env));
  const target = join(directory, model.fileName);
  if (await isIntact(target, model, options.signal)) return target;
  const errors: unknown[] = [];
  for (const source of options.sources ?? [wheelSource, hubSource()]) {
    throwIfAborted(options.signal);
    const staging = await createStaging(directory);
    try {
      await fetchInto(target, model, { source, staging, options });
      return target;
    } catch (error) {
      if (isVramError(error, 'aborted')) throw error;
      errors.push(error);
    } finally {
      await rm(staging, { recursive: true, force: true });
    }
  }
  const reasons = errors.map((error) => (error instanceof Error ? error.message : String(error)));
  throw new VramError('not-found', `cannot fetch ${model.fileName}: ${reasons.join('; ')}`, {
    cause: new AggregateError(errors),
    context: { file: model.fileName, reasons },
    retryable: true,
  });
}

async function fetchInto(
  target: string,
  model: RemoteModel,
  work: { source: ModelSource; staging: string; options: ResolveModelOptions },
): Promise<void> {
  const { source, staging, options } = work;
  const { signal } = options;
  const onProgress = options.onProgress ?? (() => undefined);
  const path = await source.fetch(model, { staging, onProgress, signal });
  onProgress(model.sizeBytes, model.sizeBytes, 'verify');
  await requireIntact(path, model, signal);
  await rename(path, target);
}

async function resolvePath(path: string): Promise<ResolvedModel> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) {
    throw new VramError(
      'not-found',
      `'${path}' is neither a file nor a model name; names: ${MODEL_NAMES.join(', ')}`,
      { context: { path, names: MODEL_NAMES } },
    );
  }
  if (found.isDirectory()) return { name: path, path, kind: 'safetensors' };
  const extension = extname(path).toLowerCase();
  if (extension === '.gguf') return { name: path, path, kind: 'gguf' };
  if (extension === '.safetensors') return { name: path, path, kind: 'safetensors' };
  throw new VramError('unsupported', `'${path}' is neither a .gguf nor a .safetensors file`, {
    context: { path },
  });
}

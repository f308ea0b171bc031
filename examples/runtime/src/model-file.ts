/**
 * One view of a model on disk, whatever its format: configuration, tensors by name, tokenizer.
 *
 * Opening reads headers only, and checks that every tensor of the architecture is there with the
 * right shape; weights are read row by row when asked for, so a file larger than host memory
 * opens as fast as a small one.
 */
import { fail, VramError } from '@vramkit/core';
import { fileSource, readGguf, type GgufMetadata } from '@vramkit/packer';
import { stat } from 'node:fs/promises';
import { dirname, extname, join } from 'node:path';
import { ggufConfig, ggufLookup } from './gguf-model.js';
import type { ModelConfig } from './model-config.js';
import { gatherTensors, type ModelTensor } from './model-tensors.js';
import { openSafetensorsModel, safetensorsConfig, safetensorsLookup } from './safetensors-model.js';

export type { ModelConfig, RopeScaling, RopeStyle } from './model-config.js';
export type { ModelTensor } from './model-tensors.js';

/** Where the tokenizer of a model comes from. */
export type TokenizerSource =
  /** Vocabulary and merges in the header of a GGUF file. */
  | { readonly type: 'gguf'; readonly metadata: GgufMetadata }
  /** `tokenizer.json`, with or without `tokenizer_config.json`, in this folder. */
  | { readonly type: 'json'; readonly folder: string }
  /** Tokens are bytes. */
  | { readonly type: 'bytes' }
  /** There is none. */
  | { readonly type: 'none' };

/** A model on disk, opened by {@link openModelFile}. */
export interface ModelFile {
  /** The path that was opened. */
  readonly path: string;
  readonly config: ModelConfig;
  /** Every tensor by name; names are in the head comment of `model-tensors.ts`. */
  readonly tensors: ReadonlyMap<string, ModelTensor>;
  /** Bytes of all tensors in the file. */
  readonly tensorBytes: number;
  readonly tokenizer: TokenizerSource;
  /** The tensor of that name; @throws VramError `not-found` where the model has none. */
  tensor(name: string): ModelTensor;
  /** Closes the files; idempotent. */
  close(): Promise<void>;
}

/**
 * Opens a `.gguf` file, a `.safetensors` file with `config.json` beside it, or a folder of the
 * latter kind (sharded or not); the caller closes it.
 *
 * @throws VramError naming file, tensor and numbers: `not-found` for a missing file, field or
 * tensor, `corrupt-data` for malformed files and wrong shapes, `unsupported` for other
 * architectures, settings, tensor types and left-over tensors; `aborted` by the signal.
 */
export async function openModelFile(
  path: string,
  options: { readonly signal?: AbortSignal } = {},
): Promise<ModelFile> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) {
    throw new VramError('not-found', `there is no file or folder ${path}`, { context: { path } });
  }
  const extension = extname(path).toLowerCase();
  if (found.isDirectory()) return openFolder(path, { ...options, folder: path });
  if (extension === '.safetensors') {
    return openFolder(path, { ...options, folder: dirname(path), file: path });
  }
  // Any other file is taken for GGUF: its first bytes decide, not its name.
  return openGguf(path, options);
}

async function openGguf(path: string, options: { signal?: AbortSignal }): Promise<ModelFile> {
  const source = await fileSource(path);
  try {
    const file = await readGguf(source, options);
    const config = await ggufConfig(file, options.signal);
    const tensors = gatherTensors(config, ggufLookup(file));
    const tokenizer = { type: 'gguf', metadata: file.metadata } as const;
    return modelFile(path, { config, tensors, tokenizer, close: () => source.close() });
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function openFolder(
  path: string,
  options: { folder: string; file?: string; signal?: AbortSignal },
): Promise<ModelFile> {
  const { folder, file, signal } = options;
  if ((await stat(join(folder, 'config.json')).catch(() => undefined)) === undefined) {
    const what = 'it has no config.json; a GGUF file is given by its own path';
    fail('not-found', `there is no model in folder ${folder}: ${what}`, { folder });
  }
  const config = await safetensorsConfig(folder);
  const model = await openSafetensorsModel(folder, file, signal);
  try {
    const tensors = gatherTensors(config, safetensorsLookup(path, model, config));
    const tokenizer = await folderTokenizer(folder, config);
    return modelFile(path, { config, tensors, tokenizer, close: () => model.close() });
  } catch (error) {
    await model.close();
    throw error;
  }
}

async function folderTokenizer(folder: string, config: ModelConfig): Promise<TokenizerSource> {
  const found = await stat(join(folder, 'tokenizer.json')).catch(() => undefined);
  if (found?.isFile() === true) return { type: 'json', folder };
  // A vocabulary of 256 without a tokenizer can only be bytes.
  return config.vocabularySize === 256 ? { type: 'bytes' } : { type: 'none' };
}

function modelFile(
  path: string,
  parts: Pick<ModelFile, 'config' | 'tensors' | 'tokenizer' | 'close'>,
): ModelFile {
  let tensorBytes = 0;
  for (const { rows, rowBytes } of parts.tensors.values()) tensorBytes += rows * rowBytes;
  return {
    ...parts,
    path,
    tensorBytes,
    tensor: (name) =>
      parts.tensors.get(name) ??
      fail('not-found', `${path}: there is no tensor '${name}'`, { file: path, tensor: name }),
  };
}

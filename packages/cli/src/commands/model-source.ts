/**
 * Opens what `pack`, `inspect` and `plan` read: a GGUF file, a safetensors file, or a folder with
 * one of these or with shards.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fail, VramError } from '@vramkit/core';
import {
  fileSource,
  isPackedFile,
  readGguf,
  readPackedFile,
  readSafetensors,
  readSafetensorsShards,
  sourceTensors,
  type ByteSource,
  type PackedFile,
  type SourceTensor,
} from '@vramkit/packer';

/** An open model file. */
export interface ModelSource {
  /** GGUF, safetensors, or a packed safetensors file. */
  readonly format: 'gguf' | 'safetensors' | 'packed';
  /** Every tensor; of a packed file, none. */
  readonly tensors: readonly SourceTensor[];
  readonly packed?: PackedFile;
  /** Paths of every file that is read, one with weights last. */
  readonly files: readonly string[];
  /** Experts that a token reads, where a GGUF file says so. */
  readonly expertsPerToken?: number;
  close(): Promise<void>;
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() === true;
}

/** The file with weights at `path`: itself, or the one of a folder. */
async function weightsFile(path: string): Promise<string> {
  const names = await readdir(path).catch(() => undefined);
  if (names === undefined) return path;
  if (names.includes('model.safetensors')) return join(path, 'model.safetensors');
  const found = names.filter((name) => /\.(?:gguf|safetensors)$/.test(name)).sort();
  const [first] = found;
  if (first === undefined) {
    return fail('not-found', `${path} has no model.safetensors and no .gguf file`, { file: path });
  }
  if (found.length === 1) return join(path, first);
  const which = found.slice(0, 3).join(', ') + (found.length > 3 ? ' and others' : '');
  return fail('invalid-argument', `${path} has several models, ${which}: name the file`, {
    file: path,
  });
}

/**
 * Experts that a token reads, as `config.json` beside the weights has it; nothing where there is no
 * such file or member.
 * @throws VramError `corrupt-data` where the file is not JSON.
 */
export async function configuredExperts(path: string): Promise<number | undefined> {
  const file = join((await isFile(path)) ? dirname(path) : path, 'config.json');
  const text = await readFile(file, 'utf8').catch(() => '{}');
  let config: unknown;
  try {
    config = JSON.parse(text);
  } catch (cause) {
    throw new VramError('corrupt-data', `${file} is not JSON`, { cause, context: { file } });
  }
  // Another program's file: a value that is no count is as good as none.
  const count = (config as { num_experts_per_tok?: unknown } | null)?.num_experts_per_tok;
  return typeof count === 'number' && Number.isSafeInteger(count) ? count : undefined;
}

/**
 * Opens the model at `path`; the caller closes it.
 * @throws VramError `not-found`, `corrupt-data`, `unsupported`, naming the file; `invalid-argument`
 * for a folder with several models.
 */
export async function openModelSource(path: string): Promise<ModelSource> {
  const index = join(path, 'model.safetensors.index.json');
  if (await isFile(index)) return openShards(path, index);
  const source = await fileSource(await weightsFile(path));
  try {
    return await openSingle(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function openSingle(source: ByteSource): Promise<ModelSource> {
  const close = (): Promise<void> => source.close();
  const files = [source.name];
  const start = new TextDecoder('latin1').decode(
    await source.read(0, Math.min(9, source.sizeBytes)),
  );
  if (start.startsWith('GGUF')) {
    const { tensors, metadata } = await readGguf(source);
    const expertsPerToken = metadata.integer('llama.expert_used_count');
    return {
      format: 'gguf',
      tensors: sourceTensors(source, tensors.values()),
      files,
      ...(expertsPerToken === undefined ? {} : { expertsPerToken }),
      close,
    };
  }
  // The length of the header, then JSON.
  if (start[8] !== '{') fail('unsupported', `${source.name} is neither GGUF nor safetensors`);
  const header = await readSafetensors(source);
  if (isPackedFile(header)) {
    return { format: 'packed', tensors: [], packed: await readPackedFile(source), files, close };
  }
  const tensors = sourceTensors(source, header.tensors.values());
  return { format: 'safetensors', tensors, files, close };
}

async function openShards(folder: string, path: string): Promise<ModelSource> {
  const index = await fileSource(path);
  try {
    const open = (name: string): Promise<ByteSource> => fileSource(join(folder, name));
    const shards = await readSafetensorsShards(index, { open });
    const tensors = [...shards.tensors.values()].flatMap(({ file, tensor }) =>
      sourceTensors(file.source, [tensor]),
    );
    const files = [path, ...shards.files.map((file) => file.source.name)];
    return { format: 'safetensors', tensors, files, close: () => shards.close() };
  } finally {
    await index.close();
  }
}

/**
 * Opens what `pack`, `inspect` and `plan` read: a GGUF file, a safetensors file, or a folder with
 * shards.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
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
  /** Paths of every file that is read. */
  readonly files: readonly string[];
  /** Experts that a token reads, where the model says so. */
  readonly expertsPerToken?: number;
  close(): Promise<void>;
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() === true;
}

/** The file at `path`, or the first one with weights of the folder. */
export async function modelFilePath(path: string): Promise<string> {
  if (await isFile(path)) return path;
  const names = await readdir(path);
  return join(path, names.sort().find((name) => name.endsWith('.safetensors')) ?? '');
}

/** What `config.json` beside the weights says of experts. */
async function configuredExperts(path: string): Promise<{ expertsPerToken?: number }> {
  const folder = (await isFile(path)) ? dirname(path) : path;
  const text = await readFile(join(folder, 'config.json'), 'utf8').catch(() => '{}');
  // Another program's file: a value that is no count is as good as none.
  const count = (JSON.parse(text) as Record<string, unknown>)['num_experts_per_tok'];
  return typeof count === 'number' && Number.isSafeInteger(count) ? { expertsPerToken: count } : {};
}

/**
 * Opens the model at `path`; the caller closes it.
 * @throws VramError `not-found`, `corrupt-data`, `unsupported`, naming the file.
 */
export async function openModelSource(path: string): Promise<ModelSource> {
  const index = join(path, 'model.safetensors.index.json');
  if (await isFile(index)) {
    return { ...(await openShards(path, index)), ...(await configuredExperts(path)) };
  }
  const single = join(path, 'model.safetensors');
  const source = await fileSource((await isFile(single)) ? single : path);
  try {
    const model = await openSingle(source);
    return model.format === 'gguf' ? model : { ...model, ...(await configuredExperts(path)) };
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function openSingle(source: ByteSource): Promise<ModelSource> {
  const close = (): Promise<void> => source.close();
  const files = [source.name];
  const magic = source.sizeBytes < 4 ? undefined : await source.read(0, 4);
  if (magic !== undefined && new TextDecoder().decode(magic) === 'GGUF') {
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

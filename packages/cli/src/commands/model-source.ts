/**
 * Opens what `pack` and `inspect` read: a GGUF file, a safetensors file, or a folder with shards.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
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
  close(): Promise<void>;
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() === true;
}

/**
 * Opens the model at `path`; the caller closes it.
 * @throws VramError `not-found`, `corrupt-data`, `unsupported`, naming the file.
 */
export async function openModelSource(path: string): Promise<ModelSource> {
  const index = join(path, 'model.safetensors.index.json');
  if (await isFile(index)) return openShards(path, index);
  const single = join(path, 'model.safetensors');
  const source = await fileSource((await isFile(single)) ? single : path);
  try {
    return await openSingle(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function openSingle(source: ByteSource): Promise<ModelSource> {
  const close = (): Promise<void> => source.close();
  const magic = source.sizeBytes < 4 ? undefined : await source.read(0, 4);
  if (magic !== undefined && new TextDecoder().decode(magic) === 'GGUF') {
    const { tensors } = await readGguf(source);
    return { format: 'gguf', tensors: sourceTensors(source, tensors.values()), close };
  }
  const header = await readSafetensors(source);
  if (isPackedFile(header)) {
    return { format: 'packed', tensors: [], packed: await readPackedFile(source), close };
  }
  const tensors = sourceTensors(source, header.tensors.values());
  return { format: 'safetensors', tensors, close };
}

async function openShards(folder: string, path: string): Promise<ModelSource> {
  const index = await fileSource(path);
  try {
    const open = (name: string): Promise<ByteSource> => fileSource(join(folder, name));
    const shards = await readSafetensorsShards(index, { open });
    const tensors = [...shards.tensors.values()].flatMap(({ file, tensor }) =>
      sourceTensors(file.source, [tensor]),
    );
    return { format: 'safetensors', tensors, close: () => shards.close() };
  } finally {
    await index.close();
  }
}

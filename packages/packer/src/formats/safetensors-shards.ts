/**
 * A safetensors model in several files: `model.safetensors.index.json` says which file holds
 * which tensor, and every file is a complete safetensors file.
 *
 * The index is untrusted: file names must be plain names in the same folder, so that an index
 * cannot point elsewhere, each tensor must really be in the file it is assigned to, and no
 * second file may hold it. Tensors that a file holds and the index does not list are left out.
 */
import type { ByteSource } from './byte-source.js';
import { failCorrupt } from './format-error.js';
import { JsonCursor } from './json-cursor.js';
import { readSafetensors, type SafetensorsFile, type SafetensorsType } from './safetensors.js';
import type { TensorRange } from './tensor-range.js';

const MAX_INDEX_BYTES = 1 << 26;
const MAX_TENSORS = 1 << 18;
const MAX_FILES = 4096;
const PLAIN_NAME = /^[^/\\:\0]{1,200}\.safetensors$/;

/** Tensors of all files of a sharded model. */
export interface SafetensorsShards {
  /** The files, in order of first mention. */
  readonly files: readonly SafetensorsFile[];
  /** Where each tensor is. */
  readonly tensors: ReadonlyMap<
    string,
    { readonly file: SafetensorsFile; readonly tensor: TensorRange<SafetensorsType> }
  >;
  /** Closes every file. */
  close(): Promise<void>;
}

/** Options of {@link readSafetensorsShards}. */
export interface ReadShardsOptions {
  /** Opens the file of that plain name, beside the index. */
  readonly open: (fileName: string) => Promise<ByteSource>;
  /** Stops the reading. */
  readonly signal?: AbortSignal;
}

/**
 * Reads the index in `index` and the header of every file that it names.
 *
 * On failure every file that was opened is closed; `index` stays with the caller.
 * @throws VramError `corrupt-data` naming file and tensor; what `open` and `readSafetensors`
 * throw.
 */
export async function readSafetensorsShards(
  index: ByteSource,
  options: ReadShardsOptions,
): Promise<SafetensorsShards> {
  const places = await readIndex(index, options.signal);
  const files = new Map<string, SafetensorsFile>();
  const close = async (): Promise<void> => {
    for (const file of files.values()) await file.source.close();
  };
  try {
    for (const fileName of new Set(places.values())) {
      const source = await options.open(fileName);
      try {
        files.set(fileName, await readSafetensors(source, options));
      } catch (error) {
        await source.close();
        throw error;
      }
    }
    return { files: [...files.values()], tensors: joinTensors(index.name, places, files), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The `weight_map`: file name by tensor name. */
async function readIndex(
  index: ByteSource,
  signal: AbortSignal | undefined,
): Promise<Map<string, string>> {
  if (index.sizeBytes > MAX_INDEX_BYTES) {
    failCorrupt(index.name, `index of ${index.sizeBytes} B, at most ${MAX_INDEX_BYTES} B`, {
      sizeBytes: index.sizeBytes,
    });
  }
  const cursor = new JsonCursor(index.name, await index.read(0, index.sizeBytes, signal));
  const places = new Map<string, string>();
  cursor.object(
    (section) => {
      if (section !== 'weight_map') return cursor.skip();
      cursor.object(
        (tensor) => {
          const fileName = cursor.string();
          if (!PLAIN_NAME.test(fileName)) {
            cursor.fail(
              `tensor '${tensor}' is in '${fileName}', not a .safetensors file beside it`,
            );
          }
          places.set(tensor, fileName);
        },
        { maxEntries: MAX_TENSORS },
      );
    },
    { maxEntries: 64 },
  );
  cursor.expectEnd();
  if (places.size === 0) failCorrupt(index.name, 'the index names no tensor');
  if (new Set(places.values()).size > MAX_FILES) {
    failCorrupt(index.name, `the index names more than ${MAX_FILES} files`);
  }
  return places;
}

function joinTensors(
  index: string,
  places: ReadonlyMap<string, string>,
  files: ReadonlyMap<string, SafetensorsFile>,
): SafetensorsShards['tensors'] {
  const joined = new Map<string, { file: SafetensorsFile; tensor: TensorRange<SafetensorsType> }>();
  for (const [name, fileName] of places) {
    const file = files.get(fileName);
    const tensor = file?.tensors.get(name);
    if (file === undefined || tensor === undefined) {
      failCorrupt(index, `tensor '${name}' is not in ${fileName}`, { tensor: name, fileName });
    }
    joined.set(name, { file, tensor });
  }
  for (const [fileName, file] of files) {
    for (const name of file.tensors.keys()) {
      const place = places.get(name) ?? fileName;
      if (place === fileName) continue;
      failCorrupt(index, `tensor '${name}' is in ${place} and again in ${fileName}`, {
        tensor: name,
        fileName,
        other: place,
      });
    }
  }
  return joined;
}

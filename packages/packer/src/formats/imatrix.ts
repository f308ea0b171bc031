/**
 * Reads the importance matrices that llama.cpp's `llama-imatrix` measures: for each weight matrix
 * the mean square of each input column over the calibration text, apart for each expert.
 *
 * Two formats, told apart by their first bytes:
 *
 *     GGUF     general.type "imatrix"; `<name>.in_sum2` F32 [experts, columns], sums of squares,
 *              and `<name>.counts` F32 [experts, 1], the tokens behind each sum
 *     legacy   entries u32, then each: name length u32 | name | calls u32 | values u32 |
 *              f32[values], means times calls; then, optional: chunks u32 | text length u32 | text
 *
 * A legacy file does not say how many experts an entry has; whoever knows the columns does.
 */
import { fail } from '@vramkit/core';
import type { ByteSource } from './byte-source.js';
import { failCorrupt } from './format-error.js';
import { readGguf } from './gguf.js';
import { HeaderCursor } from './header-cursor.js';
import { readTensorRows, type TensorRange } from './tensor-range.js';

const MAX_NAME_BYTES = 4096;
const SUMS = '.in_sum2';
const COUNTS = '.counts';

/** Importance of one weight matrix, or of the experts of a fused one. */
export interface ImatrixEntry {
  /** Mean squares of the inputs, one row for each expert; rows of an unused one are zeros. */
  readonly means: Float32Array;
  /** Tokens of each expert; one number for all where the file does not tell experts apart. */
  readonly counts: Float32Array;
}

/** An importance matrix file. */
export interface Imatrix {
  /** By the name of the weight, as GGUF has it, such as `blk.0.ffn_down.weight`. */
  readonly entries: ReadonlyMap<string, ImatrixEntry>;
  /** Texts it was measured on, where the file says so. */
  readonly datasets: readonly string[];
  /** Chunks of text, where the file says so. */
  readonly chunkCount: number | undefined;
}

/** Options of {@link readImatrix}. */
export interface ReadImatrixOptions {
  /** Stops the reading. */
  readonly signal?: AbortSignal;
}

/**
 * Reads an importance matrix, whole: a few values for each input column of a model.
 * @throws VramError `corrupt-data` naming the file, the entry and numbers, also for values that are
 * negative or not finite; `unsupported` for a GGUF file of another kind; `aborted`.
 */
export async function readImatrix(
  source: ByteSource,
  options: ReadImatrixOptions = {},
): Promise<Imatrix> {
  const magic = source.sizeBytes < 4 ? [] : await source.read(0, 4, options.signal);
  const isGguf = new TextDecoder().decode(Uint8Array.from(magic)) === 'GGUF';
  return isGguf ? readNew(source, options) : readLegacy(source, options);
}

async function readNew(source: ByteSource, { signal }: ReadImatrixOptions): Promise<Imatrix> {
  const file = await readGguf(source, signal === undefined ? {} : { signal });
  const { metadata, tensors } = file;
  const type = metadata.string('general.type');
  if (type !== 'imatrix') {
    fail('unsupported', `${source.name}: a GGUF file of type '${type}' is no importance matrix`, {
      file: source.name,
      type,
    });
  }
  const floats = async (tensor: TensorRange): Promise<Float32Array> => {
    if (tensor.type !== 'F32') failCorrupt(source.name, `'${tensor.name}' is ${tensor.type}`);
    const bytes = await readTensorRows(source, tensor, 0, tensor.rows, signal);
    return new Float32Array(new Uint8Array(bytes).buffer);
  };
  const entries = new Map<string, ImatrixEntry>();
  for (const tensor of tensors.values()) {
    if (!tensor.name.endsWith(SUMS)) continue;
    const name = tensor.name.slice(0, -SUMS.length);
    const counted = tensors.get(`${name}${COUNTS}`);
    if (counted === undefined) failCorrupt(source.name, `'${name}' has no counts`, { name });
    const [means, counts] = [await floats(tensor), await floats(counted)];
    const columns = means.length / counts.length;
    if (!Number.isInteger(columns)) {
      const numbers = { name, sums: means.length, counts: counts.length };
      failCorrupt(source.name, `${means.length} sums of '${name}' for ${counts.length}`, numbers);
    }
    means.forEach((sum, i) => (means[i] = sum / Math.max(1, counts[Math.floor(i / columns)] ?? 1)));
    entries.set(name, checked(source.name, name, { means, counts }));
  }
  return {
    entries,
    datasets: metadata.strings('imatrix.datasets') ?? [],
    chunkCount: metadata.integer('imatrix.chunk_count'),
  };
}

async function readLegacy(source: ByteSource, { signal }: ReadImatrixOptions): Promise<Imatrix> {
  const cursor = new HeaderCursor(source, source.sizeBytes, signal);
  const number = async (what: string): Promise<number> => {
    await cursor.ensure(4, what);
    return cursor.u32();
  };
  const text = async (what: string): Promise<string> => {
    const length = await number(`length of ${what}`);
    if (length > MAX_NAME_BYTES) failCorrupt(source.name, `${what} has ${length} B`, { length });
    await cursor.ensure(length, what);
    return cursor.strictText(length, what);
  };
  const count = await number('number of entries');
  if (count === 0) failCorrupt(source.name, 'it has no entries');
  const entries = new Map<string, ImatrixEntry>();
  for (let entry = 0; entry < count; entry++) {
    const name = await text(`name of entry ${entry}`);
    const calls = await number(`calls of '${name}'`);
    const values = await number(`values of '${name}'`);
    if (values === 0 || entries.has(name)) {
      failCorrupt(source.name, `entry '${name}' is empty or there twice`, { name, values });
    }
    await cursor.ensure(4 * values, `'${name}'`);
    const view = cursor.take(4 * values);
    const means = Float32Array.from({ length: values }, (_, i) => {
      return view.getFloat32(4 * i, true) / Math.max(1, calls);
    });
    entries.set(name, checked(source.name, name, { means, counts: Float32Array.of(calls) }));
  }
  if (cursor.left === 0) return { entries, datasets: [], chunkCount: undefined };
  const chunkCount = await number('number of chunks');
  const dataset = cursor.left === 0 ? '' : await text('dataset');
  if (cursor.left > 0) failCorrupt(source.name, `${cursor.left} B behind the dataset`);
  return { entries, datasets: dataset === '' ? [] : [dataset], chunkCount };
}

/** Refuses what would make a NaN of every weight. */
function checked(file: string, name: string, entry: ImatrixEntry): ImatrixEntry {
  for (const values of [entry.means, entry.counts]) {
    const index = values.findIndex((value) => !(value >= 0 && value < Infinity));
    if (index < 0) continue;
    failCorrupt(file, `'${name}' has ${values[index]} at ${index}`, { name, index });
  }
  return entry;
}

/** Options of {@link importanceOf}. */
export interface ImportanceOptions {
  /** Input features of the matrix. */
  readonly columns: number;
  /** Which expert of a fused matrix. Default: 0. */
  readonly expert?: number;
  /** Stands for each column of an expert that no token reached. Default: 1. */
  readonly priorWeight?: number;
  /** Told of each such expert. Default: nobody. */
  readonly onWarning?: (message: string) => void;
}

/**
 * Importance of each column of a matrix, for quantizers and scores; `undefined` where the file has
 * no such weight. An expert that no token reached, or all of whose inputs were 0, gets
 * `priorWeight` everywhere and a warning: zeros would leave its codes to chance.
 * @throws VramError `invalid-argument` where the entry is not whole rows of `columns`, or has no
 * such expert.
 */
export function importanceOf(
  imatrix: Imatrix,
  name: string,
  options: ImportanceOptions,
): Float32Array<ArrayBuffer> | undefined {
  const { columns, expert = 0, priorWeight = 1, onWarning } = options;
  const entry = imatrix.entries.get(name);
  if (entry === undefined) return undefined;
  const { means, counts } = entry;
  const experts = means.length / columns;
  if (!Number.isInteger(experts) || (counts.length > 1 && counts.length !== experts)) {
    fail('invalid-argument', `importance of '${name}' has ${means.length} values, not ${columns}`, {
      tensor: name,
      values: means.length,
      columns,
    });
  }
  if (expert >= experts) {
    fail('invalid-argument', `importance of '${name}' has ${experts} experts, not ${expert}`, {
      tensor: name,
      experts,
      expert,
    });
  }
  const own = means.slice(expert * columns, (expert + 1) * columns);
  const count = counts[counts.length > 1 ? expert : 0] ?? 0;
  if (count > 0 && own.some((mean) => mean > 0)) return own;
  onWarning?.(`expert ${expert} of '${name}' was never used; its columns count ${priorWeight}`);
  return own.fill(priorWeight);
}

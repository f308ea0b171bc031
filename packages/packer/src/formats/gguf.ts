/**
 * Reader of GGUF files, versions 2 and 3, little-endian.
 *
 * Layout of a file:
 *
 *     "GGUF" | version u32 | tensor count u64 | pair count u64
 *     pairs:    key string | value type u32 | value
 *     tensors:  name string | rank u32 | extents u64[rank], fastest first | type u32 | offset u64
 *     padding to `general.alignment` (32 unless stated)
 *     data:     each tensor at its offset from here, a multiple of the alignment
 *
 * Only the header is read; weights are read by range, later, with `readTensorRows`. A header is
 * untrusted: every count and length is compared with the bytes that are left before it is used,
 * and tensors must lie in the file, aligned, without overlap, under distinct names. Gaps between
 * tensors are accepted: the format does not forbid them and they are never read.
 *
 * Source: the GGUF specification of the ggml project. Stricter than it: extents of 0 are refused,
 * and so are types this package cannot dequantize, because their size is not known here.
 */
import type { ByteSource } from './byte-source.js';
import { failCorrupt, failUnsupported } from './format-error.js';
import { ggmlBlock, ggmlTypeName, isGgmlType, type GgmlType } from './ggml-types.js';
import { GgufMetadata, type GgufNumberType, type GgufValue } from './gguf-metadata.js';
import { GgufValueReader, NUMBER_TYPES } from './gguf-values.js';
import { HeaderCursor } from './header-cursor.js';
import type { TensorRange } from './tensor-range.js';

const MAGIC = 0x46554747;
const MAX_KEY_BYTES = 65_535;
const MAX_NAME_BYTES = 256;
const MAX_RANK = 4;
const MAX_ALIGNMENT = 1 << 20;
/** Shortest pair and shortest tensor entry of a header: what a claimed count costs at least. */
const MIN_PAIR_BYTES = 8 + 4 + 1;
const MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8;

/** Options of {@link readGguf}. */
export interface ReadGgufOptions {
  /** Longest header to accept, in bytes; memory stays a small multiple of it. Default: 64 MiB. */
  readonly maxHeaderBytes?: number;
  /** Stops the reading. */
  readonly signal?: AbortSignal;
}

/** Header of a GGUF file; its source stays with the caller. */
export interface GgufFile {
  /** Where the bytes are; closed by whoever opened it. */
  readonly source: ByteSource;
  /** Format version, 2 or 3. */
  readonly version: number;
  /** Key-value pairs. */
  readonly metadata: GgufMetadata;
  /** Tensors by name, in file order; shapes are slowest first. */
  readonly tensors: ReadonlyMap<string, TensorRange<GgmlType>>;
  /** Position of the first tensor byte in the file. */
  readonly dataOffset: number;
}

/**
 * Reads and checks the header of the GGUF file in `source`.
 *
 * @throws VramError `corrupt-data` naming file, tensor or key, and numbers; `unsupported` for
 * version 1, big-endian files, tensor types that are not a {@link GgmlType}, and headers above
 * the cap; `aborted` by the signal.
 *
 * @example
 * ```ts
 * import { fileSource, readGguf, readTensorRows } from '@vramkit/packer';
 * const source = await fileSource('model.gguf');
 * const file = await readGguf(source);
 * for (const { name, type, shape } of file.tensors.values()) console.log(name, type, shape);
 * const embedding = file.tensors.get('token_embd.weight');
 * if (embedding !== undefined) console.log(await readTensorRows(source, embedding, 0, 1));
 * await source.close();
 * ```
 */
export async function readGguf(
  source: ByteSource,
  options: ReadGgufOptions = {},
): Promise<GgufFile> {
  const cursor = new HeaderCursor(source, options.maxHeaderBytes ?? 1 << 26, options.signal);
  const values = new GgufValueReader(source, cursor);
  await cursor.ensure(24, 'GGUF header');
  const version = readVersion(source, cursor);
  const tensorCount = cursor.size('tensor count');
  const pairCount = cursor.size('metadata count');
  cursor.requireLeft(pairCount * MIN_PAIR_BYTES, `metadata of ${pairCount} pairs`);
  const metadata = await readPairs(source, cursor, values, pairCount);
  cursor.requireLeft(tensorCount * MIN_TENSOR_BYTES, `list of ${tensorCount} tensors`);
  const alignment = readAlignment(source, metadata);
  const found: TensorRange<GgmlType>[] = [];
  for (let i = 0; i < tensorCount; i++) {
    found.push(await readTensor(source, cursor, values, { index: i, alignment }));
  }
  const dataOffset = Math.ceil(cursor.position / alignment) * alignment;
  const tensors = placeTensors(source, found, dataOffset);
  return { source, version, metadata, tensors, dataOffset };
}

function readVersion(source: ByteSource, cursor: HeaderCursor): number {
  const magic = cursor.u32();
  if (magic !== MAGIC) {
    failCorrupt(source.name, `not a GGUF file: it starts with 0x${magic.toString(16)}`, { magic });
  }
  const version = cursor.u32();
  // Version 3 may be big-endian; then the small number is in the high bytes.
  if ((version & 0xffff) === 0 && version !== 0) {
    failUnsupported(source.name, 'big-endian GGUF files are not supported', { version });
  }
  if (version < 2 || version > 3) {
    failUnsupported(source.name, `GGUF version ${version}; versions 2 and 3 are read`, { version });
  }
  return version;
}

async function readPairs(
  source: ByteSource,
  cursor: HeaderCursor,
  values: GgufValueReader,
  count: number,
): Promise<GgufMetadata> {
  const entries = new Map<string, GgufValue>();
  const types = new Map<string, GgufNumberType>();
  for (let i = 0; i < count; i++) {
    const key = await values.string(`metadata key ${i}`, { strict: true, maxBytes: MAX_KEY_BYTES });
    if (entries.has(key)) failCorrupt(source.name, `metadata '${key}' appears twice`, { key });
    await cursor.ensure(4, `metadata '${key}'`);
    const kind = cursor.u32();
    entries.set(key, await values.value(kind, key));
    const type = NUMBER_TYPES[kind];
    if (type !== undefined) types.set(key, type);
  }
  return new GgufMetadata(source.name, entries, types);
}

function readAlignment(source: ByteSource, metadata: GgufMetadata): number {
  const alignment = metadata.integer('general.alignment') ?? 32;
  const isPowerOfTwo = alignment > 0 && (alignment & (alignment - 1)) === 0;
  if (alignment > MAX_ALIGNMENT || !isPowerOfTwo) {
    failCorrupt(
      source.name,
      `general.alignment is ${alignment}; it must be a power of two up to ${MAX_ALIGNMENT}`,
      { alignment },
    );
  }
  return alignment;
}

/** Reads one entry; its `offset` is still relative to the data section. */
async function readTensor(
  source: ByteSource,
  cursor: HeaderCursor,
  values: GgufValueReader,
  options: { index: number; alignment: number },
): Promise<TensorRange<GgmlType>> {
  const what = `name of tensor ${options.index}`;
  const name = await values.string(what, { strict: true, maxBytes: MAX_NAME_BYTES });
  await cursor.ensure(4, `tensor '${name}'`);
  const rank = cursor.u32();
  if (rank < 1 || rank > MAX_RANK) {
    failCorrupt(source.name, `tensor '${name}' has rank ${rank}, not 1 to ${MAX_RANK}`, {
      tensor: name,
      rank,
    });
  }
  await cursor.ensure(rank * 8 + 12, `tensor '${name}'`);
  const extents: number[] = [];
  for (let i = 0; i < rank; i++) extents.push(cursor.size(`extent ${i} of tensor '${name}'`));
  const type = readType(source, name, cursor.u32());
  const offset = cursor.size(`offset of tensor '${name}'`);
  if (offset % options.alignment !== 0) {
    failCorrupt(
      source.name,
      `tensor '${name}' has offset ${offset}, not a multiple of ${options.alignment}`,
      { tensor: name, offset, alignment: options.alignment },
    );
  }
  const shape = extents.reverse();
  return { name, type, shape, offset, ...sizeOf(source, name, type, shape) };
}

function readType(source: ByteSource, tensor: string, id: number): GgmlType {
  const type = ggmlTypeName(id);
  if (isGgmlType(type)) return type;
  return failUnsupported(source.name, `tensor '${tensor}' has the unsupported type ${type}`, {
    tensor,
    type,
    typeId: id,
  });
}

function sizeOf(
  source: ByteSource,
  tensor: string,
  type: GgmlType,
  shape: readonly number[],
): { rows: number; rowBytes: number; sizeBytes: number } {
  const block = ggmlBlock(type);
  const columns = shape[shape.length - 1] ?? 0;
  let rows = 1;
  for (const extent of shape.slice(0, -1)) rows *= extent;
  const rowBytes = (columns / block.weights) * block.bytes;
  const sizeBytes = rows * rowBytes;
  const whole = columns % block.weights === 0 && sizeBytes > 0;
  // Products of safe integers stay above 2^53 once they pass it, so one check at the end is
  // enough.
  if (!whole || !Number.isSafeInteger(rows * columns) || !Number.isSafeInteger(sizeBytes)) {
    failCorrupt(
      source.name,
      `tensor '${tensor}' [${shape.join(', ')}] of ${type} has no valid size: ` +
        `blocks of ${block.weights}`,
      { tensor, type, shape, blockWeights: block.weights },
    );
  }
  return { rows, rowBytes, sizeBytes };
}

function placeTensors(
  source: ByteSource,
  found: readonly TensorRange<GgmlType>[],
  dataOffset: number,
): Map<string, TensorRange<GgmlType>> {
  const tensors = new Map<string, TensorRange<GgmlType>>();
  for (const tensor of found) {
    const { name, sizeBytes } = tensor;
    const offset = dataOffset + tensor.offset;
    if (tensors.has(name))
      failCorrupt(source.name, `tensor '${name}' appears twice`, { tensor: name });
    if (offset + sizeBytes > source.sizeBytes) {
      failCorrupt(
        source.name,
        `tensor '${name}' takes bytes [${offset}, +${sizeBytes}), ` +
          `the file has ${source.sizeBytes} B`,
        { tensor: name, offset, tensorBytes: sizeBytes, sizeBytes: source.sizeBytes },
      );
    }
    tensors.set(name, { ...tensor, offset });
  }
  const ordered = [...tensors.values()].sort((a, b) => a.offset - b.offset);
  ordered.forEach((tensor, i) => {
    const before = ordered[i - 1];
    if (before === undefined || before.offset + before.sizeBytes <= tensor.offset) return;
    failCorrupt(source.name, `tensors '${before.name}' and '${tensor.name}' overlap`, {
      tensor: tensor.name,
      other: before.name,
      offset: tensor.offset,
      otherEnd: before.offset + before.sizeBytes,
    });
  });
  return tensors;
}

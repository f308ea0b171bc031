/**
 * Reader of one safetensors file.
 *
 * Layout of a file:
 *
 *     header length u64, little-endian | header: one JSON object | data
 *     header: { "__metadata__": { text: text, ... },
 *               name: { "dtype": text, "shape": [...], "data_offsets": [begin, end] }, ... }
 *
 * Offsets count from the first data byte. As the format asks, tensors must tile the data section
 * exactly: no hole, no overlap, nothing after the last; a header is at most 100 MB, starts with
 * `{` and names no key twice; a tensor's byte count follows from its type and shape. Only the
 * header is read; weights are read by range, later, with `readTensorRows`.
 *
 * Source: the format description of the safetensors project.
 */
import type { ByteSource } from './byte-source.js';
import { failCorrupt, failUnsupported } from './format-error.js';
import { JsonCursor } from './json-cursor.js';
import type { TensorRange } from './tensor-range.js';

const MAX_HEADER_BYTES = 100_000_000;
const MAX_TENSORS = 1 << 18;
const MAX_RANK = 8;

/** Element types of safetensors that take whole bytes. */
export type SafetensorsType =
  | 'BOOL'
  | 'U8'
  | 'I8'
  | 'F8_E5M2'
  | 'F8_E4M3'
  | 'F8_E8M0'
  | 'I16'
  | 'U16'
  | 'F16'
  | 'BF16'
  | 'I32'
  | 'U32'
  | 'F32'
  | 'C64'
  | 'F64'
  | 'I64'
  | 'U64';

const ELEMENT_BYTES: Readonly<Record<SafetensorsType, number>> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  F8_E8M0: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  C64: 8,
  F64: 8,
  I64: 8,
  U64: 8,
};

/** Header of a safetensors file; its source stays with the caller. */
export interface SafetensorsFile {
  /** Where the bytes are; closed by whoever opened it. */
  readonly source: ByteSource;
  /** Free text pairs of `__metadata__`. */
  readonly metadata: ReadonlyMap<string, string>;
  /** Tensors by name, in header order. */
  readonly tensors: ReadonlyMap<string, TensorRange<SafetensorsType>>;
}

/**
 * Reads and checks the header of the safetensors file in `source`.
 *
 * @throws VramError `corrupt-data` naming file, tensor and numbers; `unsupported` for an element
 * type that is not a {@link SafetensorsType}; `aborted` by the signal.
 */
export async function readSafetensors(
  source: ByteSource,
  options: { readonly signal?: AbortSignal } = {},
): Promise<SafetensorsFile> {
  const header = await readHeader(source, options.signal);
  const dataOffset = 8 + header.byteLength;
  const cursor = new JsonCursor(source.name, header);
  const metadata = new Map<string, string>();
  const tensors = new Map<string, TensorRange<SafetensorsType>>();
  cursor.object(
    (name) => {
      if (name === '__metadata__') {
        cursor.object((key) => metadata.set(key, cursor.string()), { maxEntries: MAX_TENSORS });
      } else {
        tensors.set(name, readEntry(source, cursor, name, dataOffset));
      }
    },
    { maxEntries: MAX_TENSORS },
  );
  cursor.expectEnd();
  checkTiling(source, tensors, dataOffset);
  return { source, metadata, tensors };
}

async function readHeader(
  source: ByteSource,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const { name, sizeBytes } = source;
  if (sizeBytes < 8) {
    failCorrupt(name, `${sizeBytes} B is too short for a safetensors file`, { sizeBytes });
  }
  const prefix = await source.read(0, 8, signal);
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  const limit = Math.min(MAX_HEADER_BYTES, sizeBytes - 8);
  if (length < 2n || length > BigInt(limit)) {
    failCorrupt(name, `header of ${length} B; this file of ${sizeBytes} B allows 2 to ${limit}`, {
      headerBytes: String(length),
      limitBytes: limit,
      sizeBytes,
    });
  }
  const header = await source.read(8, Number(length), signal);
  if (header[0] !== 0x7b) failCorrupt(name, "not a safetensors file: no '{' at byte 8");
  return header;
}

interface Entry {
  dtype?: string;
  shape?: number[];
  offsets?: number[];
}

function readEntry(
  source: ByteSource,
  cursor: JsonCursor,
  name: string,
  dataOffset: number,
): TensorRange<SafetensorsType> {
  const entry: Entry = {};
  cursor.object(
    (field) => {
      if (field === 'dtype') entry.dtype = cursor.string();
      else if (field === 'shape') entry.shape = cursor.integers({ maxEntries: MAX_RANK });
      else if (field === 'data_offsets') entry.offsets = cursor.integers({ maxEntries: 2 });
      else cursor.fail(`tensor '${name}' has the unknown field '${field.slice(0, 40)}'`);
    },
    { maxEntries: 3 },
  );
  const { dtype, shape, offsets } = entry;
  const [begin, end] = offsets ?? [];
  if (dtype === undefined || shape === undefined || begin === undefined || end === undefined) {
    return cursor.fail(`tensor '${name}' needs dtype, shape and two data_offsets`);
  }
  if (!isSafetensorsType(dtype)) {
    return failUnsupported(source.name, `tensor '${name}' has the unsupported type ${dtype}`, {
      tensor: name,
      type: dtype,
    });
  }
  return sized(source, { name, type: dtype, shape, begin, end, dataOffset });
}

function isSafetensorsType(name: string): name is SafetensorsType {
  return Object.hasOwn(ELEMENT_BYTES, name);
}

function sized(
  source: ByteSource,
  entry: {
    name: string;
    type: SafetensorsType;
    shape: number[];
    begin: number;
    end: number;
    dataOffset: number;
  },
): TensorRange<SafetensorsType> {
  const { name, type, shape, begin, end, dataOffset } = entry;
  let rows = 1;
  for (const extent of shape.slice(0, -1)) rows *= extent;
  const rowBytes = (shape[shape.length - 1] ?? 1) * ELEMENT_BYTES[type];
  const sizeBytes = rows * rowBytes;
  if (!Number.isSafeInteger(sizeBytes) || end - begin !== sizeBytes) {
    failCorrupt(
      source.name,
      `tensor '${name}' ${type} [${shape.join(', ')}] takes ${sizeBytes} B, not [${begin}, ${end})`,
      { tensor: name, type, shape, begin, end, tensorBytes: sizeBytes },
    );
  }
  return { name, type, shape, offset: dataOffset + begin, sizeBytes, rows, rowBytes };
}

function checkTiling(
  source: ByteSource,
  tensors: ReadonlyMap<string, TensorRange>,
  dataOffset: number,
): void {
  let end = dataOffset;
  const ordered = [...tensors.values()].sort(
    (a, b) => a.offset - b.offset || a.sizeBytes - b.sizeBytes,
  );
  for (const { name, offset, sizeBytes } of ordered) {
    if (offset !== end) {
      const what = offset < end ? 'overlaps the tensor before it' : 'leaves a hole before it';
      failCorrupt(source.name, `tensor '${name}' at ${offset} ${what}, which ends at ${end}`, {
        tensor: name,
        offset,
        expectedOffset: end,
      });
    }
    end = offset + sizeBytes;
  }
  if (end !== source.sizeBytes) {
    failCorrupt(source.name, `tensors end at ${end}, the file has ${source.sizeBytes} B`, {
      end,
      sizeBytes: source.sizeBytes,
    });
  }
}

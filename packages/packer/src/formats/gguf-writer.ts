/**
 * Writer of GGUF files, version 3: the header at once, then one tensor after the other, so that
 * host memory holds one tensor.
 */
import { assertArgument } from '@vramkit/core';
import { ByteWriter } from './byte-writer.js';
import type { ByteSink } from './file-sink.js';
import { ggmlBlock, ggmlTypeId, type GgmlType } from './ggml-types.js';
import type { GgufArray, GgufNumberType, GgufValue } from './gguf-metadata.js';

/** A tensor to write. */
export interface GgufTensorToWrite {
  readonly name: string;
  readonly type: GgmlType;
  /** Extents, slowest first. */
  readonly shape: readonly number[];
  /** Gives the bytes when their turn comes. */
  readonly read: () => Promise<Uint8Array>;
}

/** Options of {@link writeGguf}. */
export interface WriteGgufOptions {
  /** Pairs of the header, such as a `GgufFile` has them. Default: none. */
  readonly metadata?: ReadonlyMap<string, GgufValue>;
  /**
   * How its numbers are stored, such as a `GgufFile` has it; llama.cpp refuses a rate of rotation
   * that is no f32. Default: u32 or f32, or in 64 bits where neither holds them.
   */
  readonly types?: ReadonlyMap<string, GgufNumberType>;
  /** Called after each tensor with bytes written and in all. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

const ALIGNMENT = 32;
/** Kinds of numbers in the file, with arrays that hold them. */
const NUMBERS = {
  u8: [0, Uint8Array],
  i8: [1, Int8Array],
  u16: [2, Uint16Array],
  i16: [3, Int16Array],
  u32: [4, Uint32Array],
  i32: [5, Int32Array],
  f32: [6, Float32Array],
  f64: [12, Float64Array],
} as const;
const INTEGERS = { u64: [10, BigUint64Array], i64: [11, BigInt64Array] } as const;

function writeArray(writer: ByteWriter, array: GgufArray): void {
  if (ArrayBuffer.isView(array)) {
    const found = Object.values({ ...NUMBERS, ...INTEGERS }).find(
      ([, each]) => array instanceof each,
    );
    writer.u32(found?.[0] ?? 0).u64(array.length);
    writer.bytes(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
    return;
  }
  const isText = array.length === 0 || typeof array[0] === 'string';
  writer.u32(isText ? 8 : 9).u64(array.length);
  for (const element of array) {
    if (typeof element === 'string') writer.string(element);
    else writeArray(writer, element);
  }
}

function writeNumber(
  writer: ByteWriter,
  key: string,
  value: number | bigint,
  type: GgufNumberType,
): void {
  const put = (kind: number, array: ArrayBufferView<ArrayBuffer>, isKept: boolean): void => {
    assertArgument(isKept, `metadata '${key}' is ${value}, which ${type} does not hold`, { key });
    writer.u32(kind).bytes(new Uint8Array(array.buffer));
  };
  if (type === 'u64' || type === 'i64') {
    const [kind, integers] = INTEGERS[type];
    const integer = Number.isInteger(Number(value)) ? BigInt(value) : undefined;
    const array = integers.of(integer ?? 0n);
    put(kind, array, array[0] === integer);
  } else {
    const [kind, numbers] = NUMBERS[type];
    const array = numbers.of(Number(value));
    put(kind, array, array[0] === Number(value) || Object.is(array[0], value)); // NaN too
  }
}

/** What holds a number; of 32 bits where one does. */
function typeOf(value: number | bigint): GgufNumberType {
  if (typeof value === 'bigint') return value < 0 ? 'i64' : 'u64';
  if (Number.isInteger(value) && value >= 0 && value < 2 ** 32) return 'u32';
  if (Object.is(Math.fround(value), value)) return 'f32';
  if (!Number.isSafeInteger(value)) return 'f64';
  return value < 0 ? 'i64' : 'u64';
}

function writeValue(
  writer: ByteWriter,
  key: string,
  value: GgufValue,
  type: GgufNumberType | undefined,
): void {
  writer.string(key);
  if (typeof value === 'string') writer.u32(8).string(value);
  else if (typeof value === 'boolean') writer.u32(7).bytes(Uint8Array.of(value ? 1 : 0));
  else if (typeof value === 'object') writeArray(writer.u32(9), value);
  else writeNumber(writer, key, value, type ?? typeOf(value));
}

/** Bytes of a tensor; rows are whole blocks. */
function tensorBytes({ name, type, shape }: GgufTensorToWrite): number {
  const { weights, bytes } = ggmlBlock(type);
  const columns = shape.at(-1) ?? 0;
  const elements = shape.reduce((product, extent) => product * extent, 1);
  assertArgument(
    columns % weights === 0 && elements > 0 && shape.length >= 1 && shape.length <= 4,
    `'${name}' [${shape.join(', ')}] is not rows of whole ${type} blocks of ${weights}`,
    { tensor: name, type, shape },
  );
  return (elements / weights) * bytes;
}

/**
 * Writes a file and commits it; the caller closes the sink. `file.metadata.entries` and
 * `file.metadata.types` of a `GgufFile` are written as they were read, but that elements of arrays
 * of booleans are u8.
 * @throws VramError `invalid-argument` for a repeated name, rows that are not whole blocks, or
 * bytes of another size, naming the tensor, or for a number that its type does not hold, naming the
 * key; what `read` and the sink throw.
 */
export async function writeGguf(
  sink: ByteSink,
  tensors: readonly GgufTensorToWrite[],
  options: WriteGgufOptions = {},
): Promise<void> {
  const { metadata = [], types } = options;
  const sizes = tensors.map(tensorBytes);
  const names = new Set(tensors.map(({ name }) => name));
  assertArgument(names.size === tensors.length, 'two tensors have the same name');
  const pairs = [...metadata].filter(([key]) => key !== 'general.alignment');
  const header = new ByteWriter();
  header.u32(0x46554747).u32(3).u64(tensors.length).u64(pairs.length);
  for (const [key, value] of pairs) writeValue(header, key, value, types?.get(key));
  let offset = 0;
  tensors.forEach(({ name, type, shape }, i) => {
    header.string(name).u32(shape.length);
    for (const extent of [...shape].reverse()) header.u64(extent);
    header.u32(ggmlTypeId(type)).u64(offset);
    offset = Math.ceil((offset + (sizes[i] ?? 0)) / ALIGNMENT) * ALIGNMENT;
  });
  const total = offset;
  let at = 0;
  const put = async (writer: ByteWriter): Promise<void> => {
    const bytes = writer.pad(ALIGNMENT).finish();
    await sink.write(at, bytes);
    at += bytes.byteLength;
  };
  await put(header);
  const dataStart = at;
  for (const [i, tensor] of tensors.entries()) {
    const bytes = await tensor.read();
    assertArgument(
      bytes.byteLength === sizes[i],
      `'${tensor.name}' has ${bytes.byteLength} B, not ${sizes[i]}`,
      { tensor: tensor.name, sizeBytes: bytes.byteLength },
    );
    await put(new ByteWriter().bytes(bytes));
    options.onProgress?.(at - dataStart, total);
  }
  await sink.commit();
}

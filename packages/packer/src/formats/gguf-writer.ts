/**
 * Writer of GGUF files, version 3: the header at once, then one tensor after the other, so that
 * host memory holds one tensor.
 */
import { assertArgument } from '@vramkit/core';
import { ByteWriter } from './byte-writer.js';
import type { ByteSink } from './file-sink.js';
import { ggmlBlock, ggmlTypeId, type GgmlType } from './ggml-types.js';
import type { GgufArray, GgufValue } from './gguf-metadata.js';

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
  /** Called after each tensor with bytes written and in all. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

const ALIGNMENT = 32;
/** Kinds of array elements by the constructor of the array. */
const ELEMENT_KINDS: Readonly<Record<string, number>> = {
  Uint8Array: 0,
  Int8Array: 1,
  Uint16Array: 2,
  Int16Array: 3,
  Uint32Array: 4,
  Int32Array: 5,
  Float32Array: 6,
  BigUint64Array: 10,
  BigInt64Array: 11,
  Float64Array: 12,
};

function writeArray(writer: ByteWriter, array: GgufArray): void {
  if (ArrayBuffer.isView(array)) {
    writer.u32(ELEMENT_KINDS[array.constructor.name] ?? 0).u64(array.length);
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

function writeValue(writer: ByteWriter, value: GgufValue): void {
  if (typeof value === 'string') writer.u32(8).string(value);
  else if (typeof value === 'boolean') writer.u32(7).bytes(Uint8Array.of(value ? 1 : 0));
  else if (typeof value === 'bigint') writer.u32(value < 0 ? 11 : 10).u64(value);
  else if (typeof value === 'object') writeArray(writer.u32(9), value);
  else if (Number.isInteger(value) && value >= 0 && value < 2 ** 32) writer.u32(4).u32(value);
  else if (Object.is(Math.fround(value), value)) writer.u32(6).f32(value);
  else if (Number.isSafeInteger(value)) writer.u32(value < 0 ? 11 : 10).u64(value);
  else writer.u32(12).f64(value);
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
 * Writes a file and commits it; the caller closes the sink. Numbers of the metadata are written as
 * u32 or f32, or in 64 bits where neither holds them, which keeps what `readGguf` gives.
 * @throws VramError `invalid-argument` for a repeated name, rows that are not whole blocks, or
 * bytes of another size, naming the tensor; what `read` and the sink throw.
 */
export async function writeGguf(
  sink: ByteSink,
  tensors: readonly GgufTensorToWrite[],
  options: WriteGgufOptions = {},
): Promise<void> {
  const sizes = tensors.map(tensorBytes);
  const names = new Set(tensors.map(({ name }) => name));
  assertArgument(names.size === tensors.length, 'two tensors have the same name');
  const pairs = [...(options.metadata ?? [])].filter(([key]) => key !== 'general.alignment');
  const header = new ByteWriter();
  header.u32(0x46554747).u32(3).u64(tensors.length).u64(pairs.length);
  for (const [key, value] of pairs) writeValue(header.string(key), value);
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

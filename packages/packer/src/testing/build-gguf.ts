/**
 * Builds small GGUF files in memory, for tests of whatever reads them.
 *
 * It writes what it is told, so that a test can state a wrong count, type or offset; nothing here
 * checks that the result is valid. Kinds of metadata follow from the JavaScript value.
 */
import { ByteWriter } from '../formats/byte-writer.js';
import { ggmlTypeId, type GgmlType } from '../formats/ggml-types.js';

/** A metadata value: integer numbers become u32, others f32; bigint u64; arrays by element. */
export type BuildGgufValue =
  | string
  | number
  | bigint
  | boolean
  | readonly string[]
  | Uint8Array
  | Int32Array
  | Uint32Array
  | Float32Array;

/** One tensor to write. */
export interface BuildGgufTensor {
  readonly name: string;
  /** Block type, or the number of one that this package does not know. */
  readonly type: GgmlType | number;
  /** Extents, slowest first. */
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
  /** Offset to state instead of the true one, relative to the data section. */
  readonly statedOffset?: number;
}

/** Content of the file that {@link buildGguf} makes. */
export interface BuildGgufOptions {
  /** Default: 3. */
  readonly version?: number;
  /** Key-value pairs, in order. Default: none. */
  readonly metadata?: Readonly<Record<string, BuildGgufValue>>;
  /** Tensors, in the order of their bytes. Default: none. */
  readonly tensors?: readonly BuildGgufTensor[];
  /** Multiple at which tensors start. Default: 32. Written as metadata by the caller. */
  readonly alignment?: number;
}

/** Bytes of a GGUF file with the given header and tensors. */
export function buildGguf(options: BuildGgufOptions): Uint8Array<ArrayBuffer> {
  const alignment = options.alignment ?? 32;
  const tensors = options.tensors ?? [];
  const pairs = Object.entries(options.metadata ?? {});
  const header = new ByteWriter();
  header
    .u32(0x46554747)
    .u32(options.version ?? 3)
    .u64(tensors.length)
    .u64(pairs.length);
  for (const [key, value] of pairs) {
    header.string(key);
    writeValue(header, value);
  }
  let offset = 0;
  for (const { name, type, shape, bytes, statedOffset } of tensors) {
    header.string(name).u32(shape.length);
    for (const extent of [...shape].reverse()) header.u64(extent);
    header.u32(typeof type === 'number' ? type : ggmlTypeId(type)).u64(statedOffset ?? offset);
    offset = align(offset + bytes.byteLength, alignment);
  }
  header.pad(alignment);
  for (const { bytes } of tensors) header.bytes(bytes).pad(alignment);
  return header.finish();
}

function align(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

function writeValue(writer: ByteWriter, value: BuildGgufValue): void {
  if (typeof value === 'string') writer.u32(8).string(value);
  else if (typeof value === 'boolean') writer.u32(7).bytes(Uint8Array.of(value ? 1 : 0));
  else if (typeof value === 'bigint') writer.u32(10).u64(value);
  else if (typeof value === 'number' && Number.isInteger(value)) writer.u32(4).u32(value);
  else if (typeof value === 'number') writer.u32(6).f32(value);
  else if (value instanceof Uint8Array) writer.u32(9).u32(0).u64(value.length).bytes(value);
  else if (ArrayBuffer.isView(value)) {
    const kind = value instanceof Int32Array ? 5 : value instanceof Uint32Array ? 4 : 6;
    writer.u32(9).u32(kind).u64(value.length);
    writer.bytes(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  } else {
    writer.u32(9).u32(8).u64(value.length);
    for (const text of value) writer.string(text);
  }
}

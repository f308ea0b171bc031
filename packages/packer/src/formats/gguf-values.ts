/**
 * Reads one typed value of a GGUF header.
 *
 * An array states its length before its elements. The length is compared with the bytes left before
 * anything is allocated: numbers go into a typed array read in one piece, strings and nested arrays
 * take at least 8 and 12 bytes of the file each. Nesting is limited, and so is the number of nested
 * arrays, because each costs far more memory than its 12 bytes.
 */
import type { ByteSource } from './byte-source.js';
import { failCorrupt, failUnsupported } from './format-error.js';
import type { GgufArray, GgufNumberType, GgufValue } from './gguf-metadata.js';
import type { HeaderCursor } from './header-cursor.js';

const MAX_NESTING = 3;
const MAX_NESTED_ARRAYS = 65_536;
const STRING = 8;
const ARRAY = 9;

/** Bytes of each scalar kind, by its number in the file. */
const SCALAR_BYTES: Readonly<Record<number, number>> = {
  0: 1, // u8
  1: 1, // i8
  2: 2, // u16
  3: 2, // i16
  4: 4, // u32
  5: 4, // i32
  6: 4, // f32
  7: 1, // bool
  10: 8, // u64
  11: 8, // i64
  12: 8, // f64
};

/** Types of numbers, by their kind in the file. */
export const NUMBER_TYPES: Readonly<Record<number, GgufNumberType>> = {
  0: 'u8',
  1: 'i8',
  2: 'u16',
  3: 'i16',
  4: 'u32',
  5: 'i32',
  6: 'f32',
  10: 'u64',
  11: 'i64',
  12: 'f64',
};

/** Reads values of one header; counts nested arrays over the whole header. */
export class GgufValueReader {
  readonly #source: ByteSource;
  readonly #cursor: HeaderCursor;
  #nestedArrays = 0;

  constructor(source: ByteSource, cursor: HeaderCursor) {
    this.#source = source;
    this.#cursor = cursor;
  }

  /** Reads a length-prefixed string; keys and names are `strict` about UTF-8 and short. */
  async string(what: string, options: { strict: boolean; maxBytes?: number }): Promise<string> {
    const cursor = this.#cursor;
    await cursor.ensure(8, what);
    const length = cursor.size(`length of ${what}`);
    const maxBytes = options.maxBytes ?? length;
    if (length > maxBytes) {
      failCorrupt(this.#source.name, `${what} is ${length} B long, at most ${maxBytes}`, {
        what,
        lengthBytes: length,
        maxBytes,
      });
    }
    if (!cursor.has(length)) await cursor.ensure(length, what);
    return options.strict ? cursor.strictText(length, what) : cursor.text(length);
  }

  /** Reads the value of kind `kind` that belongs to `key`. */
  async value(kind: number, key: string): Promise<GgufValue> {
    const what = `metadata '${key}'`;
    if (kind === STRING) return this.string(what, { strict: false });
    if (kind === ARRAY) return this.#array(what, 1);
    const bytes = SCALAR_BYTES[kind];
    if (bytes === undefined) return this.#unknownKind(kind, what);
    await this.#cursor.ensure(bytes, what);
    const value = scalar(kind, this.#cursor.take(bytes));
    return value ?? failCorrupt(this.#source.name, `${what} is not a boolean`, { key });
  }

  async #array(what: string, depth: number): Promise<GgufArray> {
    if (depth > MAX_NESTING) {
      failUnsupported(this.#source.name, `${what} nests arrays deeper than ${MAX_NESTING}`, {
        what,
      });
    }
    const cursor = this.#cursor;
    await cursor.ensure(12, what);
    const kind = cursor.u32();
    const length = cursor.size(`length of ${what}`);
    if (kind === STRING) return this.#strings(what, length);
    if (kind === ARRAY) return this.#arrays(what, length, depth);
    const bytes = SCALAR_BYTES[kind];
    if (bytes === undefined) return this.#unknownKind(kind, what);
    cursor.requireLeft(length * bytes, what);
    await cursor.ensure(length * bytes, what);
    return numbers(kind, cursor.take(length * bytes));
  }

  async #strings(what: string, length: number): Promise<readonly string[]> {
    const cursor = this.#cursor;
    cursor.requireLeft(length * 8, what);
    const strings: string[] = [];
    for (let i = 0; i < length; i++) {
      // Waiting only where the window ends keeps a vocabulary of 10^5 tokens fast.
      if (!cursor.has(8)) await cursor.ensure(8, what);
      const bytes = cursor.size(`length of element ${i} of ${what}`);
      if (!cursor.has(bytes)) await cursor.ensure(bytes, what);
      strings.push(cursor.text(bytes));
    }
    return strings;
  }

  async #arrays(what: string, length: number, depth: number): Promise<readonly GgufArray[]> {
    this.#cursor.requireLeft(length * 12, what);
    this.#nestedArrays += length;
    if (this.#nestedArrays > MAX_NESTED_ARRAYS) {
      failUnsupported(this.#source.name, `${what}: more than ${MAX_NESTED_ARRAYS} nested arrays`, {
        what,
        length,
      });
    }
    const arrays: GgufArray[] = [];
    for (let i = 0; i < length; i++) arrays.push(await this.#array(what, depth + 1));
    return arrays;
  }

  #unknownKind(kind: number, what: string): never {
    return failCorrupt(this.#source.name, `${what} has the unknown value type ${kind}`, {
      what,
      valueType: kind,
    });
  }
}

function scalar(kind: number, view: DataView): number | bigint | boolean | undefined {
  switch (kind) {
    case 0:
      return view.getUint8(0);
    case 1:
      return view.getInt8(0);
    case 2:
      return view.getUint16(0, true);
    case 3:
      return view.getInt16(0, true);
    case 4:
      return view.getUint32(0, true);
    case 5:
      return view.getInt32(0, true);
    case 6:
      return view.getFloat32(0, true);
    case 7:
      return view.getUint8(0) > 1 ? undefined : view.getUint8(0) === 1;
    case 10:
      return exact(view.getBigUint64(0, true));
    case 11:
      return exact(view.getBigInt64(0, true));
    default:
      return view.getFloat64(0, true);
  }
}

function exact(value: bigint): number | bigint {
  return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

function numbers(kind: number, view: DataView): GgufArray {
  // A copy, because elements start at any byte of the file. Typed arrays have the byte order of the
  // machine, which is little-endian wherever WebGPU runs.
  const buffer = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
  switch (kind) {
    case 1:
      return new Int8Array(buffer);
    case 2:
      return new Uint16Array(buffer);
    case 3:
      return new Int16Array(buffer);
    case 4:
      return new Uint32Array(buffer);
    case 5:
      return new Int32Array(buffer);
    case 6:
      return new Float32Array(buffer);
    case 10:
      return new BigUint64Array(buffer);
    case 11:
      return new BigInt64Array(buffer);
    case 12:
      return new Float64Array(buffer);
    default:
      return new Uint8Array(buffer);
  }
}

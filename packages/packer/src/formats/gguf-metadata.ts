/**
 * Key-value pairs of a GGUF header, with accessors that check the kind of a value.
 *
 * Numeric arrays are typed arrays and strings are kept as they are, so the memory of a header is
 * a small multiple of its bytes in the file whatever it claims.
 */
import { failCorrupt } from './format-error.js';

/** Array value: typed array for numbers (booleans as 0 and 1), strings, or arrays of arrays. */
export type GgufArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array
  | readonly string[]
  | readonly GgufArray[];

/** How a GGUF header stores one number. */
export type GgufNumberType =
  'u8' | 'i8' | 'u16' | 'i16' | 'u32' | 'i32' | 'f32' | 'u64' | 'i64' | 'f64';

/** One value of a GGUF header; 64-bit integers are numbers where they are exact. */
export type GgufValue = number | bigint | boolean | string | GgufArray;

/** The metadata of one GGUF file. Each accessor gives `undefined` for a key that is not there. */
export class GgufMetadata {
  /** All pairs, in file order. */
  readonly entries: ReadonlyMap<string, GgufValue>;
  /** How the file stores each single number; programs ask for their numbers by type. */
  readonly types: ReadonlyMap<string, GgufNumberType>;
  readonly #file: string;

  constructor(
    file: string,
    entries: ReadonlyMap<string, GgufValue>,
    types: ReadonlyMap<string, GgufNumberType> = new Map(),
  ) {
    this.#file = file;
    this.entries = entries;
    this.types = types;
  }

  /** Text; @throws VramError `corrupt-data` for another kind. */
  string(key: string): string | undefined {
    const value = this.entries.get(key);
    return value === undefined || typeof value === 'string'
      ? value
      : this.#mismatch(key, 'a string');
  }

  /** Finite number; @throws VramError `corrupt-data` for another kind, NaN or an infinity. */
  number(key: string): number | undefined {
    const value = this.entries.get(key);
    if (value === undefined) return undefined;
    return typeof value === 'number' && Number.isFinite(value)
      ? value
      : this.#mismatch(key, 'a finite number');
  }

  /** Integer in `[min, 2^53)`; @throws VramError `corrupt-data` for anything else. */
  integer(key: string, min = 0): number | undefined {
    const value = this.entries.get(key);
    if (value === undefined) return undefined;
    return typeof value === 'number' && Number.isSafeInteger(value) && value >= min
      ? value
      : this.#mismatch(key, `an integer of at least ${min}`);
  }

  /** Boolean; @throws VramError `corrupt-data` for another kind. */
  boolean(key: string): boolean | undefined {
    const value = this.entries.get(key);
    return value === undefined || typeof value === 'boolean'
      ? value
      : this.#mismatch(key, 'a boolean');
  }

  /** Array of strings; @throws VramError `corrupt-data` for another kind. */
  strings(key: string): readonly string[] | undefined {
    const value = this.entries.get(key);
    if (value === undefined) return undefined;
    if (!Array.isArray(value) || (value.length > 0 && typeof value[0] !== 'string')) {
      return this.#mismatch(key, 'an array of strings');
    }
    // The reader builds an array of one element type, so the first element speaks for all.
    return value as readonly string[];
  }

  /**
   * Array of numbers of at most 32 bits or f64.
   * @throws VramError `corrupt-data` for another kind.
   */
  numbers(key: string): ArrayLike<number> | undefined {
    const value = this.entries.get(key);
    if (value === undefined) return undefined;
    const wide = value instanceof BigUint64Array || value instanceof BigInt64Array;
    if (!ArrayBuffer.isView(value) || wide) return this.#mismatch(key, 'an array of numbers');
    return value;
  }

  #mismatch(key: string, expected: string): never {
    const value = this.entries.get(key);
    const found = typeof value === 'object' ? value.constructor.name : String(value).slice(0, 40);
    return failCorrupt(this.#file, `metadata '${key}' must be ${expected}, it is ${found}`, {
      key,
    });
  }
}

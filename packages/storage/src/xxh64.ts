/**
 * xxh64 (Collet, 2012) of npm `xxhash-wasm`: a fast checksum for faults, not for attacks.
 *
 * The module is compiled once per caller's promise; its memory is shared by the hashes of one
 * instance, which are synchronous, so calls cannot disturb each other.
 */
import xxhash from 'xxhash-wasm';

/** Hashes of whole byte arrays. */
export interface Xxh64 {
  /** 8 bytes, little endian, of `data` under an integer seed. */
  bytes(data: Uint8Array, seed?: number): Uint8Array;
  /** Whether `hash` is what {@link Xxh64.bytes} gives. */
  matches(data: Uint8Array, hash: Uint8Array, seed?: number): boolean;
  /** The same as 16 hexadecimal digits. */
  hex(data: Uint8Array, seed?: number): string;
}

const instance: { promise?: Promise<Xxh64> } = {};

/** The one instance of this process; about 1 ms the first time. */
export function openXxh64(): Promise<Xxh64> {
  instance.promise ??= xxhash().then(({ h64Raw }) => {
    const bytes = (data: Uint8Array, seed = 0): Uint8Array => {
      const hash = new Uint8Array(8);
      new DataView(hash.buffer).setBigUint64(0, h64Raw(data, BigInt(seed)), true);
      return hash;
    };
    const matches = (data: Uint8Array, hash: Uint8Array, seed = 0): boolean =>
      new DataView(hash.buffer, hash.byteOffset).getBigUint64(0, true) ===
      h64Raw(data, BigInt(seed));
    const hex = (data: Uint8Array, seed = 0): string =>
      h64Raw(data, BigInt(seed)).toString(16).padStart(16, '0');
    return { bytes, matches, hex };
  });
  return instance.promise;
}

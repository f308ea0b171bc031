/**
 * xxh64 (Collet, 2012): a fast checksum for faults, not for attacks.
 *
 * The native code of npm `@node-rs/xxhash` reads bytes where they are, at twice the speed of
 * WebAssembly, which has to copy them first. Where its binary is missing (an unusual platform, a
 * bundle), npm `xxhash-wasm` gives the same hashes.
 */
import type * as native from '@node-rs/xxhash';
import xxhash from 'xxhash-wasm';

/** Hashes of byte arrays that are all there. */
export interface Xxh64 {
  /** The hash of `pieces` one after the other, under an integer seed. */
  hash(pieces: readonly Uint8Array[], seed?: number): bigint;
  /** The hash of `data` as 8 bytes, little endian. */
  bytes(data: Uint8Array, seed?: number): Uint8Array;
  /** The same as 16 hexadecimal digits. */
  hex(data: Uint8Array, seed?: number): string;
}

type Whole = (data: Uint8Array, seed: bigint) => bigint;
interface Stream {
  update(data: Uint8Array): unknown;
  digest(): bigint;
}

const instance: { promise?: Promise<Xxh64> } = {};

/** The one instance of this process; a few milliseconds the first time. */
export function openXxh64(): Promise<Xxh64> {
  instance.promise ??= nativeXxh64().then((native) => native ?? wasmXxh64());
  return instance.promise;
}

/** Native code, or `undefined` where it cannot be loaded. */
export async function nativeXxh64(): Promise<Xxh64 | undefined> {
  try {
    // A variable keeps bundlers from resolving a package that holds binaries.
    const specifier = '@node-rs/xxhash';
    // The name is that of the types.
    const module = (await import(/* @vite-ignore */ specifier)) as typeof native;
    return withHash(module.xxh64, (seed) => new module.Xxh64(seed));
  } catch {
    return undefined;
  }
}

/** WebAssembly; its memory is shared by the hashes, which are synchronous. */
export async function wasmXxh64(): Promise<Xxh64> {
  const { h64Raw, create64 } = await xxhash();
  return withHash(h64Raw, create64);
}

function withHash(whole: Whole, begin: (seed: bigint) => Stream): Xxh64 {
  const hash = (pieces: readonly Uint8Array[], seed = 0): bigint => {
    const [first] = pieces;
    if (pieces.length === 1 && first !== undefined) return whole(first, BigInt(seed));
    const stream = begin(BigInt(seed));
    for (const piece of pieces) stream.update(piece);
    return stream.digest();
  };
  return {
    hash,
    bytes(data, seed) {
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigUint64(0, hash([data], seed), true);
      return bytes;
    },
    hex: (data, seed) => hash([data], seed).toString(16).padStart(16, '0'),
  };
}

/**
 * XXH3, 64 bits (Collet, 2020): a fast checksum for faults, not for attacks.
 *
 * The native code of npm `xxhash-addon` reads bytes where they are, with the widest vectors that
 * the processor has; WebAssembly takes eight times as long, a part of it for copying them first.
 * Where its binary is missing (an unusual platform, a bundle), npm `hash-wasm` gives the same
 * hashes.
 */
import { createXXHash3 } from 'hash-wasm';
import type * as addon from 'xxhash-addon';

/** Hashes of byte arrays that are all there. */
export interface Xxh3 {
  /** The hash of `pieces` one after the other. */
  hash(pieces: readonly Uint8Array[]): bigint;
  /** The hash of `data` as 16 hexadecimal digits. */
  hex(data: Uint8Array): string;
}

/** The hash of pieces as 8 bytes, big endian: its canonical form. */
type Digest = (pieces: readonly Uint8Array[]) => Uint8Array;

const instance: { promise?: Promise<Xxh3> } = {};

/** The one instance of this process; a few milliseconds the first time. */
export function openXxh3(): Promise<Xxh3> {
  instance.promise ??= nativeXxh3().then((native) => native ?? wasmXxh3());
  return instance.promise;
}

/** Native code, or `undefined` where it cannot be loaded. */
export async function nativeXxh3(): Promise<Xxh3 | undefined> {
  try {
    // A variable keeps bundlers from resolving a package that holds binaries.
    const specifier = 'xxhash-addon';
    // The names are those of the types.
    const { default: module } = (await import(/* @vite-ignore */ specifier)) as {
      default: typeof addon;
    };
    const { XXHash3 } = module;
    const noSeed = Buffer.alloc(8);
    return withDigest((pieces) => {
      const [first] = pieces;
      if (pieces.length === 1 && first !== undefined) return XXHash3.hash(bufferOf(first));
      const stream = new XXHash3(noSeed);
      for (const piece of pieces) stream.update(bufferOf(piece));
      return stream.digest();
    });
  } catch {
    return undefined;
  }
}

/** WebAssembly; its memory is shared by the hashes, which are synchronous. */
export async function wasmXxh3(): Promise<Xxh3> {
  const stream = await createXXHash3();
  return withDigest((pieces) => {
    stream.init();
    for (const piece of pieces) stream.update(piece);
    return stream.digest('binary');
  });
}

function bufferOf({ buffer, byteOffset, length }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, length);
}

function withDigest(digest: Digest): Xxh3 {
  const hash = (pieces: readonly Uint8Array[]): bigint => {
    const { buffer, byteOffset } = digest(pieces);
    return new DataView(buffer, byteOffset).getBigUint64(0);
  };
  return { hash, hex: (data) => hash([data]).toString(16).padStart(16, '0') };
}

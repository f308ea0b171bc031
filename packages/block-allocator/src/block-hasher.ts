/**
 * Block hashers: the digest of a full block from the digest of the one before it, its tokens and
 * its extra key. Equal token prefixes have equal digests; one changed token changes the digest of
 * its block and of all blocks behind it.
 *
 * Two, because two things are asked of a digest. Within a process it only has to be spread well and
 * quick: tokens are compared on a hit, so a collision costs a comparison and never a wrong answer.
 * {@link fastHasher} is two chains of 32-bit multiplications side by side, which a JavaScript
 * engine keeps in registers; a call into WebAssembly costs more than the whole of it. Between
 * processes that trust nothing but the digest, an adversary must not be able to choose tokens that
 * collide: {@link sha256Hasher}, as vLLM does by default.
 *
 * A chain begins at a root digest made from a seed. Processes that share digests use the same seed;
 * one that wants digests nobody can predict passes a random one.
 */
import { sha256 } from '@noble/hashes/sha2.js';
import { intAt, uintAt } from './index-array.js';

/** Digests of chained blocks. Digests are `words` 32-bit words in arrays of the caller. */
export interface BlockHasher {
  /** Tells hashers apart, for caches that exchange digests. */
  readonly name: string;
  /** 32-bit words of a digest: at least 2, of which the first two are spread well on their own. */
  readonly words: number;
  /** Writes the digest that chains begin with to `out[0 .. words)`. */
  root(seed: string, out: Int32Array): void;
  /**
   * Writes the digest of a block to `out[0 .. words)`. Leaves no garbage where `extra` is empty and
   * the hasher is the fast one.
   * @param parent Array with the parent's digest at `parentAt`.
   * @param tokens Array with the block's `count` tokens at `start`.
   * @param extra What separates otherwise equal blocks, such as an adapter; '' for nothing.
   */
  hash(
    parent: Int32Array,
    parentAt: number,
    tokens: Uint32Array,
    start: number,
    count: number,
    extra: string,
    out: Int32Array,
  ): void;
}

// Odd constants with irregular bits: primes of xxHash32 and multipliers of MurmurHash3's finish.
const PRIME_A = 0x9e37_79b1;
const PRIME_B = 0x85eb_ca77;
const MIX_A = 0x85eb_ca6b;
const MIX_B = 0xc2b2_ae35;

/** 64 bits from two independent 32-bit chains; tens of nanoseconds a block of 16 tokens. */
export function fastHasher(): BlockHasher {
  return {
    name: 'fast64',
    words: 2,
    root(seed, out) {
      out[0] = PRIME_A;
      out[1] = PRIME_B;
      foldText(seed, out);
    },
    hash(parent, parentAt, tokens, start, count, extra, out) {
      // Even and odd tokens go down chains of their own, so that two multiplications of each half
      // are in flight at once.
      let a = intAt(parent, parentAt) ^ count;
      let b = intAt(parent, parentAt + 1) + count;
      let c = a ^ PRIME_B;
      let d = b ^ PRIME_A;
      const end = start + count;
      let index = start;
      for (; index + 1 < end; index += 2) {
        const even = uintAt(tokens, index);
        const odd = uintAt(tokens, index + 1);
        a = Math.imul(a ^ even, PRIME_A);
        b = Math.imul(b + even, PRIME_B);
        c = Math.imul(c ^ odd, PRIME_A);
        d = Math.imul(d + odd, PRIME_B);
        a ^= a >>> 15;
        b ^= b >>> 13;
        c ^= c >>> 15;
        d ^= d >>> 13;
      }
      if (index < end) {
        a = Math.imul(a ^ uintAt(tokens, index), PRIME_A);
        b = Math.imul(b + uintAt(tokens, index), PRIME_B);
      }
      out[0] = finish(a + Math.imul(c, MIX_A));
      out[1] = finish(b + Math.imul(d, MIX_B));
      if (extra !== '') foldText(extra, out);
    },
  };
}

/** Mixes UTF-16 code units into both halves of a digest. */
function foldText(text: string, out: Int32Array): void {
  let a = intAt(out, 0) ^ text.length;
  let b = intAt(out, 1) + text.length;
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    a = Math.imul(a ^ unit, PRIME_A);
    a ^= a >>> 15;
    b = Math.imul(b + unit, PRIME_B);
    b ^= b >>> 13;
  }
  out[0] = finish(a);
  out[1] = finish(b);
}

/** Spreads every bit over the word; the 32-bit finish of MurmurHash3 (Appleby, 2011). */
function finish(word: number): number {
  let mixed = Math.imul(word ^ (word >>> 16), MIX_A);
  mixed = Math.imul(mixed ^ (mixed >>> 13), MIX_B);
  return mixed ^ (mixed >>> 16);
}

/**
 * SHA-256 of parent digest, tokens as little-endian u32, and extra key as UTF-8: for indexes that
 * processes share. About a microsecond a block, and garbage.
 */
export function sha256Hasher(): BlockHasher {
  const words = 8;
  const text = new TextEncoder();
  const write = (digest: Uint8Array, out: Int32Array): void => {
    const view = new DataView(digest.buffer, digest.byteOffset);
    for (let word = 0; word < words; word++) out[word] = view.getInt32(word * 4, true);
  };
  return {
    name: 'sha256',
    words,
    root: (seed, out) => write(sha256(text.encode(seed)), out),
    hash(parent, parentAt, tokens, start, count, extra, out) {
      const tail = text.encode(extra);
      const bytes = new Uint8Array((words + count) * 4 + tail.length);
      const view = new DataView(bytes.buffer);
      for (let word = 0; word < words; word++) {
        view.setInt32(word * 4, intAt(parent, parentAt + word), true);
      }
      for (let index = 0; index < count; index++) {
        view.setUint32((words + index) * 4, uintAt(tokens, start + index), true);
      }
      bytes.set(tail, (words + count) * 4);
      write(sha256(bytes), out);
    },
  };
}

/** A digest as hexadecimal, 8 digits a word. */
export function digestText(digest: Int32Array, start: number, words: number): string {
  let hex = '';
  for (let word = start; word < start + words; word++) {
    hex += (intAt(digest, word) >>> 0).toString(16).padStart(8, '0');
  }
  return hex;
}

/**
 * Name of a block's contents for those outside this process: its digest, and its group as 8
 * hexadecimal digits, so that equal tokens of two groups have two names.
 */
export function packBlockKey(digest: string, group: number): string {
  return digest + group.toString(16).padStart(8, '0');
}

/** Takes {@link packBlockKey} apart. */
export function unpackBlockKey(key: string): { readonly digest: string; readonly group: number } {
  return { digest: key.slice(0, -8), group: Number.parseInt(key.slice(-8), 16) };
}

/** Both implementations give the hashes of the reference, whole or in pieces. */
import { seededRandom } from '@vramkit/core/testing';
import { describe, expect, it } from 'vitest';
import { nativeXxh64, openXxh64, wasmXxh64, type Xxh64 } from './xxh64.js';

const { uniform } = seededRandom(64);
const bytes = Uint8Array.from({ length: 2 ** 18 + 8 }, () => Math.floor(uniform() * 256));
const SEEDS = [0, 1, 2, 2 ** 31, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER];

async function native(): Promise<Xxh64> {
  const found = await nativeXxh64();
  if (found === undefined) throw new Error('@node-rs/xxhash has no binary for this platform');
  return found;
}

describe.each([
  ['native', native],
  ['WebAssembly', wasmXxh64],
])('xxh64 in %s', (_, open) => {
  // From the reference implementation's own tables (xxhsum, 2012) and its documentation.
  it('gives the published hashes', async () => {
    const { hex } = await open();
    const text = (value: string): Uint8Array => new TextEncoder().encode(value);
    expect(hex(text(''))).toBe('ef46db3751d8e999');
    expect(hex(text('a'))).toBe('d24ec4f1a98c6e5b');
    expect(hex(text('abc'))).toBe('44bc2cf5ad770999');
  });

  it('gives the same for pieces as for the whole', async () => {
    const { hash } = await open();
    for (const cut of [0, 1, 31, 32, 33, 1000, bytes.length]) {
      for (const seed of SEEDS) {
        const pieces = [bytes.subarray(0, cut), bytes.subarray(cut)];
        expect(hash(pieces, seed)).toBe(hash([bytes], seed));
      }
    }
    expect(hash([], 1)).toBe(hash([new Uint8Array(0)], 1));
  });

  it('reads shared memory and views', async () => {
    const { hash } = await open();
    const shared = new Uint8Array(new SharedArrayBuffer(5000), 7, 4000);
    shared.set(bytes.subarray(0, 4000));
    expect(hash([shared], 5)).toBe(hash([bytes.slice(0, 4000)], 5));
  });
});

describe('the two', () => {
  it('agree on every length up to 1,100 B under every seed', async () => {
    const [first, second] = [await native(), await wasmXxh64()];
    for (let length = 0; length <= 1100; length += 1) {
      const data = bytes.subarray(length % 9, (length % 9) + length);
      for (const seed of SEEDS) expect(first.hash([data], seed)).toBe(second.hash([data], seed));
    }
    for (const seed of SEEDS) expect(first.bytes(bytes, seed)).toEqual(second.bytes(bytes, seed));
  });

  it('are one instance for a process', async () => {
    expect(await openXxh64()).toBe(await openXxh64());
  });
});

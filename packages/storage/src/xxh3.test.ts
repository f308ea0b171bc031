/** Both implementations give the hashes of the reference, whole or in pieces. */
import { seededRandom } from '@vramkit/core/testing';
import { describe, expect, it } from 'vitest';
import { nativeXxh3, openXxh3, wasmXxh3, type Xxh3 } from './xxh3.js';

const { uniform } = seededRandom(64);
const bytes = Uint8Array.from({ length: 2 ** 18 + 8 }, () => Math.floor(uniform() * 256));

async function native(): Promise<Xxh3> {
  const found = await nativeXxh3();
  if (found === undefined) throw new Error('xxhash-addon has no binary for this platform');
  return found;
}

describe.each([
  ['native', native],
  ['WebAssembly', wasmXxh3],
])('XXH3 in %s', (_, open) => {
  // By `xxhsum -H3` 0.8.1, the reference's own program.
  it('gives the hashes of the reference', async () => {
    const { hex } = await open();
    const text = (value: string): Uint8Array => new TextEncoder().encode(value);
    expect(hex(text(''))).toBe('2d06800538d394c2');
    expect(hex(text('a'))).toBe('e6c632b61e964e1f');
    expect(hex(text('abc'))).toBe('78af5f94892f3950');
    expect(hex(new Uint8Array(1000))).toBe('24c1ea6074dd588c');
  });

  it('gives the same for pieces as for the whole', async () => {
    const { hash } = await open();
    for (const cut of [0, 1, 31, 32, 33, 240, 241, 1000, bytes.length]) {
      const pieces = [bytes.subarray(0, cut), bytes.subarray(cut)];
      expect(hash(pieces)).toBe(hash([bytes]));
    }
    expect(hash([])).toBe(hash([new Uint8Array(0)]));
  });

  it('reads shared memory and views', async () => {
    const { hash } = await open();
    const shared = new Uint8Array(new SharedArrayBuffer(5000), 7, 4000);
    shared.set(bytes.subarray(0, 4000));
    expect(hash([shared])).toBe(hash([bytes.slice(0, 4000)]));
  });
});

describe('the two', () => {
  it('agree on every length up to 1,100 B, and on more than a block of the hash', async () => {
    const [first, second] = [await native(), await wasmXxh3()];
    for (let length = 0; length <= 1100; length += 1) {
      const data = bytes.subarray(length % 9, (length % 9) + length);
      expect(first.hash([data])).toBe(second.hash([data]));
    }
    expect(first.hash([bytes])).toBe(second.hash([bytes]));
  });

  it('are one instance for a process', async () => {
    expect(await openXxh3()).toBe(await openXxh3());
  });
});

/** One array from one get or from several, with no more calls than that takes. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { checksummedStore, memoryStore, posixStore, readBlob, type BlobStore } from './index.js';
import { wrapStore } from './layers/wrap.js';
import { testBytes } from './testing/store-test.js';

const bytes = testBytes(10_000);

/** A store with a blob 'a' that moves in parts of 4,000 B, and the calls that it was asked. */
async function watchedStore(): Promise<{ store: BlobStore; calls: string[] }> {
  const memory = memoryStore();
  await memory.put('a', bytes);
  const calls: string[] = [];
  const store = wrapStore(memory, {
    capabilities: { ...memory.capabilities, preferredChunkBytes: 4000 },
    head: (key, options) => {
      calls.push('head');
      return memory.head(key, options);
    },
    get: (key, options = {}) => {
      calls.push(`get ${options.offsetBytes ?? 0}+${options.lengthBytes ?? 'rest'}`);
      return memory.get(key, options);
    },
  });
  return { store, calls };
}

describe('readBlob', () => {
  it('takes one call, with a length or without', async () => {
    const { store, calls } = await watchedStore();
    expect(await readBlob(store, 'a')).toEqual(bytes);
    expect(await readBlob(store, 'a', { offsetBytes: 9000 })).toEqual(bytes.subarray(9000));
    expect(await readBlob(store, 'a', { lengthBytes: 10 })).toEqual(bytes.subarray(0, 10));
    expect(calls).toEqual(['get 0+rest', 'get 9000+rest', 'get 0+10']);
  });

  it('refuses ranges that are none, and those that no array can have', async () => {
    const { store } = await watchedStore();
    for (const parallelGets of [1, 2]) {
      for (const lengthBytes of [-1, 1.5, NaN, 2 ** 50]) {
        const read = readBlob(store, 'a', { lengthBytes, parallelGets });
        await expect(read).rejects.toMatchObject({ code: 'invalid-argument' });
      }
    }
  });

  it('reads parts of one version into memory of the caller', async () => {
    const { store, calls } = await watchedStore();
    const into = new Uint8Array(10_000);
    expect(await readBlob(store, 'a', { parallelGets: 2, into })).toBe(into);
    expect(into).toEqual(bytes);
    expect(calls).toEqual(['head', 'get 0+4000', 'get 4000+4000', 'get 8000+2000']);
  });

  it('gets a file straight into its array, with checksums too', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vramkit-read-'));
    try {
      const files = await posixStore({ folder });
      const large = testBytes(3 * 2 ** 20 + 5);
      for (const store of [files, checksummedStore(files)]) {
        for (const [key, blob] of [
          ['large', large],
          ['small', bytes],
          ['empty', new Uint8Array(0)],
        ] as const) {
          await store.put(key, blob);
          let chunks = 0;
          const watched = wrapStore(store, {
            async *get(name, options) {
              for await (const chunk of store.get(name, options)) {
                chunks += 1;
                expect(chunk.buffer.byteLength).toBe(blob.length);
                yield chunk;
              }
            },
          });
          const read = await readBlob(watched, key);
          expect(Buffer.compare(read, blob)).toBe(0);
          expect(chunks > 0).toBe(blob.length > 0);
        }
        const other = { into: () => new Uint8Array(9), lend: true };
        const chunks = store.get('small', other)[Symbol.asyncIterator]();
        await expect(chunks.next()).rejects.toMatchObject({ code: 'invalid-argument' });
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('says what is missing or does not fit', async () => {
    const { store } = await watchedStore();
    await expect(readBlob(store, 'b')).rejects.toMatchObject({ code: 'not-found' });
    const short = readBlob(store, 'a', { into: new Uint8Array(9) });
    await expect(short).rejects.toMatchObject({ code: 'invalid-argument' });
    const beyond = readBlob(store, 'a', { offsetBytes: 10_001 });
    await expect(beyond).rejects.toMatchObject({ code: 'invalid-argument' });
  });
});

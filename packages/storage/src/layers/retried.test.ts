/** What is tried again, in stacks: bodies that can be read once, gets beside a writer. */
import { Readable } from 'node:stream';
import { ReadableStream } from 'node:stream/web';
import { VramError } from '@vramkit/core';
import { describe, expect, it } from 'vitest';
import {
  checksummedStore,
  limitedStore,
  memoryStore,
  readBlob,
  retriedStore,
  tracedStore,
  type BlobBody,
  type BlobStore,
} from '../index.js';
import { testBytes } from '../testing.js';
import { wrapStore } from './wrap.js';

const retried = (store: BlobStore) => retriedStore(store, { random: () => 0 });
const LAYERS: Readonly<Record<string, (store: BlobStore) => BlobStore>> = {
  retried,
  'checksummed retried': (store) => checksummedStore(retried(store)),
  'limited retried': (store) => limitedStore(retried(store), { maxCalls: 1 }),
  'traced retried': (store) =>
    tracedStore(retried(store), { sink: () => undefined, clock: () => 0 }),
};

const bytes = testBytes(1000, 2);
async function* generated() {
  yield bytes;
}
const ONCE: Readonly<Record<string, () => BlobBody>> = {
  "a generator's result": generated,
  'a stream of Node': () => Readable.from([bytes]),
  'a stream of the web': () => ReadableStream.from([bytes]),
};

/** A store whose puts fail once, after the body was read. */
function failingOnce(memory: BlobStore): BlobStore {
  let failures = 1;
  return wrapStore(memory, {
    async put(key, body, options) {
      if (failures-- <= 0) return memory.put(key, body, options);
      await memoryStore().put(key, body, options);
      throw new VramError('unavailable', 'the connection was reset', { retryable: true });
    },
  });
}

describe.each(Object.entries(LAYERS))('%s', (_, wrap) => {
  it.each(Object.entries(ONCE))('never publishes what is left of %s', async (_name, body) => {
    const memory = memoryStore();
    await wrap(memory).put('a', testBytes(10));
    const put = wrap(failingOnce(memory)).put('a', body());
    await expect(put).rejects.toMatchObject({ code: 'unavailable' });
    expect(await readBlob(wrap(memory), 'a')).toEqual(testBytes(10));
  });

  it('refuses a body that is none', async () => {
    const store = wrap(memoryStore());
    for (const body of [new ArrayBuffer(4), 'text', [bytes], undefined, null]) {
      // As a caller without types may call it.
      const put = store.put('a', body as unknown as BlobBody);
      await expect(put).rejects.toMatchObject({ code: 'invalid-argument' });
    }
  });

  it('sends an iterable again that begins again', async () => {
    const store = wrap(failingOnce(memoryStore()));
    await store.put('a', { [Symbol.asyncIterator]: generated });
    expect(await readBlob(store, 'a')).toEqual(bytes);
  });
});

describe('a whole get of a blob that is replaced after its size was asked for', () => {
  const afterHead = (body: Uint8Array): BlobStore => {
    const memory = memoryStore();
    const replaced = wrapStore(memory, {
      async head(key, options) {
        await memory.put(key, new Uint8Array(5));
        const info = await memory.head(key, options);
        await memory.put(key, body);
        return info;
      },
    });
    return retried(replaced);
  };

  it('gives the new bytes where they are few', async () => {
    expect(await readBlob(afterHead(bytes), 'a')).toEqual(bytes);
  });

  it('holds no more back than a chunk', async () => {
    const large = new Uint8Array(memoryStore().capabilities.preferredChunkBytes + 1);
    const read = readBlob(afterHead(large), 'a');
    await expect(read).rejects.toMatchObject({ code: 'conflict' });
  });
});

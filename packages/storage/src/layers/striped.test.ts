/** Stripes that are lost, damaged or not written are told; only what nobody names is removed. */
import { VramError } from '@vramkit/core';
import { describe, expect, it } from 'vitest';
import { memoryStore, readBlob, stripedStore, type BlobStore } from '../index.js';
import { testBytes } from '../testing.js';
import { wrapStore } from './wrap.js';

const stripeBytes = 4096;
const options = { stripeBytes };

describe('striped', () => {
  it('keeps the old blob where a stripe is refused while the body is awaited', async () => {
    const second = memoryStore({ limitBytes: stripeBytes });
    const store = stripedStore([memoryStore(), second], options);
    const old = testBytes(2 * stripeBytes);
    await store.put('a', old);
    async function* slow() {
      for (let i = 0; i < 4; i += 1) {
        yield testBytes(stripeBytes, i);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
    await expect(store.put('a', slow())).rejects.toMatchObject({ code: 'storage-full' });
    expect(await readBlob(store, 'a')).toEqual(old);
  });

  it.each(['timeout', 'unavailable', 'aborted'] as const)(
    'keeps the stripes of a manifest whose put was applied and ended as %s',
    async (code) => {
      const first = memoryStore();
      const unsure = wrapStore(first, {
        async put(key, body, put) {
          const info = await first.put(key, body, put);
          if (!key.startsWith('stripe/')) throw new VramError(code, 'the answer was lost');
          return info;
        },
      });
      const store = stripedStore([unsure, memoryStore()], options);
      await expect(store.put('a', testBytes(10_000))).rejects.toMatchObject({ code });
      expect(await readBlob(store, 'a')).toEqual(testBytes(10_000));
    },
  );

  it('removes the stripes of a put that was aborted before its manifest', async () => {
    const [first, second] = [memoryStore(), memoryStore()];
    const controller = new AbortController();
    async function* aborting() {
      yield testBytes(3 * stripeBytes);
      controller.abort();
      yield testBytes(stripeBytes);
    }
    const put = stripedStore([first, second], options).put('a', aborting(), controller);
    await expect(put).rejects.toMatchObject({ code: 'aborted' });
    expect([await keysOf(first), await keysOf(second)]).toEqual([[], []]);
  });
});

async function keysOf(store: BlobStore): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list('')) keys.push(key);
  return keys;
}

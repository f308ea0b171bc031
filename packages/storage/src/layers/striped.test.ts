/** Stripes that are lost, damaged or not written are told; only what nobody names is removed. */
import { VramError } from '@vramkit/core';
import { describe, expect, it } from 'vitest';
import { memoryStore, readBlob, stripedStore, type BlobStore, type Durability } from '../index.js';
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

  it('tells a lost and a cut stripe from a blob that was replaced', async () => {
    for (const damage of ['lost', 'cut']) {
      const second = memoryStore();
      const store = stripedStore([memoryStore(), second], options);
      await store.put('a', testBytes(100_000));
      const reading = store.get('a')[Symbol.asyncIterator]();
      await reading.next();
      const stripe = (await keysOf(second)).find((key) => key.endsWith('/9')) ?? '';
      if (damage === 'lost') await second.delete(stripe);
      else await second.put(stripe, testBytes(100));
      await expect(readBlob(store, 'a')).rejects.toMatchObject({
        code: 'corrupt-data',
        context: { key: 'a' },
      });
      await store.put('a', testBytes(5));
      const rest = async () => {
        while ((await reading.next()).done !== true);
      };
      await expect(rest()).rejects.toMatchObject({ code: 'conflict' });
    }
  });

  it('lists, replaces and deletes a blob whose manifest is damaged', async () => {
    const first = memoryStore();
    const store = stripedStore([first, memoryStore()], options);
    for (const key of ['a', 'b']) {
      await first.put(key, testBytes(7));
      await expect(store.head(key)).rejects.toMatchObject({ code: 'corrupt-data' });
    }
    await store.put('c', testBytes(10));
    const sizes: number[] = [];
    for await (const { sizeBytes } of store.list('')) sizes.push(sizeBytes);
    expect(sizes).toEqual([0, 0, 10]);
    await store.put('a', testBytes(20));
    await store.delete('b');
    expect(await keysOf(store)).toEqual(['a', 'c']);
    expect(await readBlob(store, 'a')).toEqual(testBytes(20));
  });

  it('is as durable as the weakest of its stores', () => {
    const storeOf = (durability: Durability): BlobStore => {
      const memory = memoryStore();
      return wrapStore(memory, { capabilities: { ...memory.capabilities, durability } });
    };
    const durabilityOf = (...kinds: [Durability, Durability]) =>
      stripedStore([storeOf(kinds[0]), storeOf(kinds[1])]).capabilities.durability;
    expect(durabilityOf('synced', 'none')).toBe('none');
    expect(durabilityOf('service', 'synced')).toBe('synced');
    expect(durabilityOf('service', 'service')).toBe('service');
  });

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

/** The RADOS adapter on a monitor and an OSD of this machine, through koffi and librados. */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import { readBlob } from '@vramkit/storage';
import { radosStore, type RadosStore } from '@vramkit/storage/rados';
import { describeStore, testBytes } from '@vramkit/storage/testing';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { giantBytes, serviceVariable } from '../environment.js';
import { expectOpens } from '../by-address.js';
import { radosPool } from '../stores.js';

describeStore(
  'RADOS',
  async () => {
    const namespace = randomUUID();
    const stores = [await radosPool(namespace), await radosPool(namespace)] as const;
    const opened: RadosStore[] = [...stores];
    const reopen = async (): Promise<RadosStore> => {
      const store = await radosPool(namespace);
      opened.push(store);
      return store;
    };
    const close = async (): Promise<void> => {
      for (const each of opened) await each[Symbol.asyncDispose]();
    };
    return { store: stores[0], other: stores[1], reopen, close };
  },
  { describe, it, expect },
  { pageKeys: 1203, raceRounds: 24, giantBytes },
);

describe('RADOS', () => {
  const namespace = randomUUID();
  let store: RadosStore;
  let stripes: RadosStore;
  beforeAll(async () => {
    store = await radosPool(namespace);
    stripes = await radosPool(`${namespace}.stripes`);
  });
  afterAll(async () => {
    await store[Symbol.asyncDispose]();
    await stripes[Symbol.asyncDispose]();
  });

  it('is opened by its address', async () => {
    const conf = encodeURIComponent(serviceVariable('CEPH_CONF'));
    await expectOpens(`rados://${serviceVariable('CEPH_RADOS_POOL')}/by-address?conf=${conf}`);
  });

  it('leaves no stripes of failed, replaced and deleted puts', async () => {
    const body = testBytes(13 * 2 ** 20 + 5);
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield body;
      throw new RangeError('no more');
    }
    await expect(store.put('a', failing())).rejects.toBeInstanceOf(RangeError);
    await Promise.all(Array.from({ length: 6 }, () => store.put('a', body)));
    const read = await readBlob(store, 'a', { parallelGets: 4 });
    expect(Buffer.compare(read, body)).toBe(0);
    // What is left is what the head names; a sweep of everything finds nothing.
    expect(await store.sweep(0)).toBe(0);
    await store.delete('a');
    expect(await store.sweep(0)).toBe(0);
  });

  it('keeps the stripes of a put whose head an OSD that hangs writes later', async () => {
    const pidFile = `${serviceVariable('CEPH_UP_DIR')}/pid/osd.0`;
    const osd = parseInt(readFileSync(pidFile, 'utf8'), 10);
    const hang = { isArmed: false };
    // The OSD hangs when the head is on its way: no other write of a put is an operation.
    const hanging = {
      load: (path: string) => ({
        func(prototype: string) {
          const call = koffi.load(path).func(prototype);
          if (!prototype.includes('rados_write_op_operate')) return call;
          const later = (...values: unknown[]): unknown => {
            if (hang.isArmed) process.kill(osd, 'SIGSTOP');
            hang.isArmed = false;
            return call.async(...values);
          };
          return Object.assign((...values: unknown[]): unknown => call(...values), {
            async: later,
          });
        },
      }),
    };
    const configFile = serviceVariable('CEPH_CONF');
    const pool = serviceVariable('CEPH_RADOS_POOL');
    const options = { pool, configFile, namespace: randomUUID(), timeoutSeconds: 2 };
    await using slow = await radosStore({ koffi: hanging, ...options });
    await slow.put('a', testBytes(9 * 2 ** 20));
    const bytes = testBytes(9 * 2 ** 20 + 1);
    hang.isArmed = true;
    try {
      await expect(slow.put('a', bytes)).rejects.toMatchObject({ code: 'timeout' });
    } finally {
      process.kill(osd, 'SIGCONT');
    }
    // Its calls come after those that it holds.
    await vi.waitFor(() => slow.head('a'), { timeout: 60_000 });
    expect(Buffer.compare(await readBlob(slow, 'a'), bytes)).toBe(0);
  });

  it('lists, replaces and deletes blobs that are damaged', async () => {
    // A namespace of stripes is a namespace: as heads, stripes are damaged.
    const rotten = await radosPool(`${namespace}.rotten`);
    await using heads = await radosPool(`${namespace}.rotten.stripes`);
    await rotten.put('x', testBytes(9 * 2 ** 20));
    await rotten[Symbol.asyncDispose]();
    const keys: string[] = [];
    for await (const { key, sizeBytes } of heads.list('')) {
      expect(sizeBytes).toBe(0);
      keys.push(key);
    }
    expect(keys).toHaveLength(3);
    const [first = '', ...others] = keys;
    await expect(heads.head(first)).rejects.toMatchObject({ code: 'corrupt-data' });
    await expect(readBlob(heads, first)).rejects.toMatchObject({ code: 'corrupt-data' });
    await heads.put(first, testBytes(10));
    expect(await readBlob(heads, first)).toEqual(testBytes(10));
    for (const key of others) await heads.delete(key);
    const left: string[] = [];
    for await (const { key } of heads.list('')) left.push(key);
    expect(left).toEqual([first]);
  });

  it('sweeps the stripes of killed writers once they are old, and nothing else', async () => {
    await store.put('kept', testBytes(9 * 2 ** 20));
    // A namespace of stripes is a namespace: a foreign object in it stands for a lost stripe.
    await stripes.put(`${'0'.repeat(32)}/0/lost`, testBytes(10));
    expect(await store.sweep(3600)).toBe(0);
    expect(await store.sweep(0)).toBe(1);
    const read = await readBlob(store, 'kept');
    expect(Buffer.compare(read, testBytes(9 * 2 ** 20))).toBe(0);
  });

  it('waits for what is under way when it is disposed, and is then of no use', async () => {
    const name = randomUUID();
    const closing = await radosPool(name);
    const bytes = testBytes(9 * 2 ** 20);
    for (const key of ['x', 'y']) await closing.put(key, bytes);
    const list = closing.list('')[Symbol.asyncIterator]();
    await list.next();
    const puts = ['a', 'b', 'c'].map((key) => closing.put(key, bytes));
    const settled = Promise.allSettled(puts);
    await Promise.all([closing[Symbol.asyncDispose](), closing[Symbol.asyncDispose]()]);
    for (const result of await settled) {
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'disposed' });
    }
    await expect(closing.head('a')).rejects.toMatchObject({ code: 'disposed' });
    await list.return?.();
    await using again = await radosPool(name);
    for await (const { key } of again.list('')) {
      expect(Buffer.compare(await readBlob(again, key), bytes)).toBe(0);
    }
  });

  it('says what is missing: library, pool, permission', async () => {
    const configFile = serviceVariable('CEPH_CONF');
    const options = { koffi, configFile, pool: serviceVariable('CEPH_RADOS_POOL') };
    for (const wrong of [{ library: 'librados-none.so' }, { pool: 'none' }]) {
      await expect(radosStore({ ...options, ...wrong })).rejects.toMatchObject({
        code: 'not-found',
      });
    }
    await expect(radosStore({ ...options, user: 'nobody' })).rejects.toMatchObject({
      name: 'VramError',
    });
  });
});

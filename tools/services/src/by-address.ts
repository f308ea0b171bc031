/** A store that is opened by its address, with the drivers of this folder. */
import { randomUUID } from 'node:crypto';
import { readBlob } from '@vramkit/storage';
import { openStore } from '@vramkit/storage/store-url';
import { testBytes } from '@vramkit/storage/testing';
import { expect } from 'vitest';

/** Opens, puts, gets, lists and deletes; a second opening finds a blob, calls at once their own. */
export async function expectOpens(address: string): Promise<void> {
  const options = { load: (name: string) => import(name), random: Math.random };
  const key = `by-address/${randomUUID()}`;
  const bytes = testBytes(100_000);
  {
    await using store = await openStore(address, options);
    await store.put(key, bytes);
  }
  await using store = await openStore(address, options);
  expect(Buffer.compare(await readBlob(store, key), bytes)).toBe(0);
  const keys: string[] = [];
  for await (const info of store.list(key)) keys.push(info.key);
  expect(keys).toEqual([key]);
  await store.delete(key);
  expect(await store.head(key)).toBeUndefined();
  const blobs = Array.from({ length: 32 }, (_, i) => [`${key}/${i}`, testBytes(100 + i)] as const);
  await Promise.all(blobs.map(([at, written]) => store.put(at, written)));
  const read = await Promise.all(blobs.map(([at]) => readBlob(store, at)));
  expect(read).toEqual(blobs.map(([, written]) => written));
}

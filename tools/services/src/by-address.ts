/** A store that is opened by its address, with the drivers of this folder. */
import { randomUUID } from 'node:crypto';
import { readBlob } from '@vramkit/storage';
import { openStore } from '@vramkit/storage/store-url';
import { testBytes } from '@vramkit/storage/testing';
import { expect } from 'vitest';

/** Opens, puts, gets, lists and deletes one blob; a second opening finds it. */
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
}

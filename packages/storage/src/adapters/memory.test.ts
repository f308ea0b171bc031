/** The memory store keeps the contract, and its limit. */
import { describe, expect, it } from 'vitest';
import { memoryStore, readBlob } from '../index.js';
import { describeStore, testBytes } from '../testing.js';

describeStore('memory', () => ({ store: memoryStore() }), { describe, it, expect });

it('keeps what a Buffer held when it was put, and gives copies', async () => {
  const store = memoryStore();
  const content = Buffer.from(testBytes(100));
  await store.put('a', content);
  content.fill(0);
  for await (const chunk of store.get('a')) chunk.fill(0);
  expect(await readBlob(store, 'a')).toEqual(testBytes(100));
});

describe('memory limit', () => {
  it('refuses what exceeds it, keeps what is there, and counts what was freed', async () => {
    const store = memoryStore({ limitBytes: 1000 });
    await store.put('a', testBytes(600));
    await expect(store.put('b', testBytes(401))).rejects.toMatchObject({ code: 'storage-full' });
    await expect(store.put('a', testBytes(1001))).rejects.toMatchObject({ code: 'storage-full' });
    expect(await store.head('a')).toMatchObject({ sizeBytes: 600 });
    await store.put('a', testBytes(1000));
    await store.delete('a');
    await store.put('b', testBytes(1000));
  });
});

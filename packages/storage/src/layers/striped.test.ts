/** Stripes that are lost, damaged or not written are told; only what nobody names is removed. */
import { describe, expect, it } from 'vitest';
import { memoryStore, readBlob, stripedStore } from '../index.js';
import { testBytes } from '../testing.js';

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
});

/** What a cache keeps, gives and passes by, and whose signal ends what. */
import { LruPolicy, seededRandom } from '@vramkit/core/testing';
import { describe, expect, it } from 'vitest';
import {
  cachedStore,
  chaoticStore,
  checksummedStore,
  memoryStore,
  readBlob,
  type BlobStore,
  type CallOptions,
} from '../index.js';
import { testBytes } from '../testing.js';
import { wrapStore } from './wrap.js';

const bytes = (store: BlobStore, key: string, options?: CallOptions) =>
  readBlob(store, key, options);

describe('cached', () => {
  const options = () => ({ budgetBytes: 3000, policy: new LruPolicy<string>() });

  it('reads a part from far once, keeps to its budget, and serves no stale part', async () => {
    const far = memoryStore();
    const near = memoryStore();
    await far.put('a', testBytes(10_000));
    const store = await cachedStore(far, {
      ...options(),
      near,
      partBytes: 4096,
      budgetBytes: 9000,
    });
    expect(Buffer.compare(await bytes(store, 'a'), testBytes(10_000))).toBe(0);
    expect(store.stats()).toMatchObject({ misses: 3, hits: 0 });
    await readBlob(store, 'a', { offsetBytes: 9000, lengthBytes: 10 });
    expect(store.stats().hits).toBe(1);
    expect(store.stats().residentBytes).toBeLessThanOrEqual(9000);
    await far.put('a', testBytes(10_000, 2));
    expect(Buffer.compare(await bytes(store, 'a'), testBytes(10_000, 2))).toBe(0);
    // Opened again on what is near, the parts of this version are there.
    const again = await cachedStore(far, {
      ...options(),
      near,
      partBytes: 4096,
      budgetBytes: 9000,
    });
    await readBlob(again, 'a', { offsetBytes: 9000, lengthBytes: 10 });
    expect(again.stats()).toMatchObject({ hits: 1, misses: 0 });
  });

  it('keeps stores apart that share a near one', async () => {
    const near = memoryStore();
    const caches = async (store: BlobStore): Promise<BlobStore> =>
      cachedStore(store, { near, budgetBytes: 1e6, policy: new LruPolicy<string>() });
    const [one, two] = [memoryStore(), memoryStore()];
    await one.put('a', testBytes(100, 1));
    await two.put('a', testBytes(100, 2));
    expect(await bytes(await caches(one), 'a')).toEqual(testBytes(100, 1));
    expect(await bytes(await caches(two), 'a')).toEqual(testBytes(100, 2));
    // A layer that changes the bytes has another name than what it stands on.
    await checksummedStore(one).put('b', testBytes(100));
    expect((await bytes(await caches(one), 'b')).length).toBe(108);
    expect(await bytes(await caches(checksummedStore(one)), 'b')).toEqual(testBytes(100));
  });

  it("ends a get at its own signal, and nobody else's", async () => {
    const memory = memoryStore();
    await memory.put('a', testBytes(20_000));
    const far = wrapStore(memory, {
      async *get(key, getOptions) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        getOptions?.signal?.throwIfAborted();
        yield* memory.get(key, getOptions);
      },
    });
    const near = memoryStore();
    const store = await cachedStore(far, {
      ...options(),
      near,
      partBytes: 4096,
      budgetBytes: 50_000,
    });
    const controller = new AbortController();
    const first = bytes(store, 'a', { signal: controller.signal });
    const second = bytes(store, 'a');
    setTimeout(() => controller.abort(), 5);
    await expect(first).rejects.toMatchObject({ code: 'aborted' });
    expect(Buffer.compare(await second, testBytes(20_000))).toBe(0);
    // With all parts near.
    const later = new AbortController();
    const chunks = store.get('a', { signal: later.signal })[Symbol.asyncIterator]();
    expect((await chunks.next()).done).toBe(false);
    later.abort();
    await expect(chunks.next()).rejects.toMatchObject({ code: 'aborted' });
  });

  it('opens over a near store that cannot list', async () => {
    const memory = memoryStore();
    await memory.put('a', testBytes(100));
    const near = wrapStore(memoryStore(), {
      // A generator that fails at its first step.
      async *list() {
        yield* chaoticStore(memory, { random: () => 0, failureRate: 1 }).list('');
      },
    });
    const errors: unknown[] = [];
    const onNearError = (error: unknown): void => void errors.push(error);
    const store = await cachedStore(memory, { ...options(), near, onNearError });
    expect(errors).toMatchObject([{ code: 'unavailable' }]);
    expect(await bytes(store, 'a')).toEqual(testBytes(100));
  });

  it('refuses memory of another size than the range', async () => {
    const memory = memoryStore();
    await memory.put('a', testBytes(100));
    const store = await cachedStore(memory, { ...options(), near: memoryStore() });
    const read = drain(store.get('a', { into: new Uint8Array(99) }));
    await expect(read).rejects.toMatchObject({ code: 'invalid-argument' });
    await drain(store.get('a', { into: new Uint8Array(100) }));
  });

  it('passes by a near store that fails, and says so', async () => {
    const { uniform: random } = seededRandom(3);
    const far = memoryStore();
    await far.put('a', testBytes(50_000));
    const memory = memoryStore();
    const failing = chaoticStore(memory, { random, failureRate: 0.5, flipRate: 0.2 });
    const near = wrapStore(checksummedStore(failing), { list: (p, o) => memory.list(p, o) });
    const errors: unknown[] = [];
    const store = await cachedStore(far, {
      near,
      budgetBytes: 40_000,
      policy: new LruPolicy<string>(),
      partBytes: 4096,
      onNearError: (error) => errors.push(error),
    });
    for (let i = 0; i < 20; i += 1) {
      expect(Buffer.compare(await bytes(store, 'a'), testBytes(50_000))).toBe(0);
    }
    expect(errors.length).toBeGreaterThan(0);
  });
});

async function drain(chunks: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const chunk of chunks) expect(chunk).toBeInstanceOf(Uint8Array);
}

/** The KV tier: equal names for equal prefixes only, right bytes or none, budgets, restarts. */
import { VramError } from '@vramkit/core';
import { LruPolicy, seededRandom } from '@vramkit/core/testing';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  chaoticStore,
  KvTier,
  memoryStore,
  prefixNames,
  readBlob,
  type BlobStore,
  type KvIdentity,
} from './index.js';
import { testBytes } from './testing.js';
import { wrapStore } from './layers/wrap.js';

const identity: KvIdentity = { model: 'tiny', dtype: 'f16', blockSize: 4 };
const blockBytes = 1000;
const block = (name: string): Uint8Array => testBytes(blockBytes, parseInt(name.slice(0, 8), 16));

function open(store: BlobStore, hostBlocks: number, storedBlocks: number): Promise<KvTier> {
  return KvTier.open(store, {
    identity,
    blockBytes,
    host: { budgetBytes: hostBlocks * blockBytes, policy: new LruPolicy() },
    storage: { budgetBytes: storedBlocks * blockBytes, policy: new LruPolicy() },
  });
}

describe('prefix names', () => {
  it('are equal for equal prefixes of one identity, and for nothing else', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(60_000), { maxLength: 40 }),
        fc.array(fc.nat(60_000), { maxLength: 40 }),
        (a, b) => {
          const [left, right] = [a, b].map((tokens) => prefixNames(identity, tokens));
          let shared = 0;
          while (shared < Math.min(a.length, b.length) && a[shared] === b[shared]) shared += 1;
          const equal = (left ?? []).filter((name, i) => name === right?.[i]).length;
          expect(equal).toBe(Math.floor(shared / 4));
        },
      ),
    );
    const tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    const names = prefixNames(identity, Uint32Array.from(tokens));
    expect(names).toEqual(prefixNames(identity, tokens));
    const others = [{ model: 'x' }, { dtype: 'f32' }, { salt: 'tenant' }, { blockSize: 8 }];
    const all = others.flatMap((other) => prefixNames({ ...identity, ...other }, tokens));
    expect(new Set([...names, ...all]).size).toBe(names.length + all.length);
  });
});

describe('KV tier', () => {
  const names = prefixNames(
    identity,
    Array.from({ length: 64 }, (_, i) => i),
  );

  it('gives a prefix back after a restart, and to no other model', async () => {
    const store = memoryStore();
    const first = await open(store, 2, 100);
    for (const name of names) expect(await first.store(name, block(name))).toBe(true);
    const second = await open(store, 2, 100);
    expect(second.matchCount(names)).toBe(names.length);
    for (const name of names) expect(await second.load(name)).toEqual(block(name));
    second.check();
    const other = await KvTier.open(store, {
      identity: { ...identity, model: 'other' },
      blockBytes,
      host: { budgetBytes: 0, policy: new LruPolicy() },
      storage: { budgetBytes: 1e6, policy: new LruPolicy() },
    });
    expect(other.matchCount(names)).toBe(0);
  });

  it('agrees with a map: right bytes or none, within both budgets', async () => {
    for (const seed of [1, 2, 3]) {
      const random = seededRandom(seed);
      const store = memoryStore();
      let tier = await open(store, 3, 8);
      for (let step = 0; step < 300; step += 1) {
        const name = names[random.integer(0, names.length - 1)] ?? '';
        const choice = random.uniform();
        if (choice < 0.5) expect(await tier.store(name, block(name))).toBe(true);
        else if (choice < 0.97) {
          const known = tier.matchCount([name]) === 1;
          const loaded = await tier.load(name);
          expect(loaded).toEqual(known ? block(name) : undefined);
          loaded?.fill(0); // the caller's own
        } else tier = await open(store, 3, 8);
        tier.check();
        expect(tier.usage('storage').residentBytes).toBeLessThanOrEqual(8 * blockBytes);
        expect(tier.usage('host').residentBytes).toBeLessThanOrEqual(3 * blockBytes);
      }
    }
  });

  it('takes a damaged or missing block for a miss, and forgets it', async () => {
    const store = memoryStore();
    const first = await open(store, 0, 100);
    for (const name of names) await first.store(name, block(name));
    const keys: string[] = [];
    for await (const { key } of store.list('')) keys.push(key);
    const [flipped = '', cut = '', gone = ''] = keys;
    const bytes = await readBlob(store, flipped);
    bytes[500] = (bytes[500] ?? 0) ^ 4;
    await store.put(flipped, bytes);
    await store.put(cut, (await readBlob(store, cut)).subarray(0, 700));
    await store.delete(gone);
    let misses = 0;
    for (const name of names) {
      const loaded = await first.load(name);
      if (loaded === undefined) {
        misses += 1;
        expect(first.matchCount([name])).toBe(0);
        expect(await first.store(name, block(name))).toBe(true);
      }
      expect(await first.load(name)).toEqual(block(name));
    }
    expect(misses).toBe(3);
    first.check();
  });

  it('keeps what a Buffer held when it was stored, and gives copies', async () => {
    const tier = await open(memoryStore(), 1, 1);
    const [name = ''] = names;
    const live = Buffer.from(block(name));
    await tier.store(name, live);
    live.fill(0);
    (await tier.load(name))?.fill(0);
    expect(await tier.load(name)).toEqual(block(name));
  });

  it('opens beside blobs of which nothing is left but some bytes', async () => {
    const store = memoryStore();
    const first = await open(store, 0, 100);
    for (const name of names) await first.store(name, block(name));
    const keys: string[] = [];
    for await (const { key } of store.list('')) keys.push(key);
    for (const [sizeBytes, key] of keys.slice(0, 5).entries()) {
      await store.put(key, testBytes(sizeBytes));
    }
    const second = await open(store, 0, 100);
    expect(names.filter((name) => second.matchCount([name]) === 0)).toHaveLength(5);
  });

  it('leaves nothing in the store that its books lack, also where calls fail', async () => {
    const memory = memoryStore();
    const failed = (): never => {
      throw new VramError('unavailable', 'failed');
    };
    let failing: 'delete' | 'put' | undefined;
    const store = wrapStore(memory, {
      delete: (...call) => (failing === 'delete' ? failed() : memory.delete(...call)),
      put: async (...call) => {
        const info = await memory.put(...call);
        return failing === 'put' ? failed() : info; // carried out, and then the answer was lost
      },
    });
    const tier = await open(store, 0, 2);
    const aborted = { signal: AbortSignal.abort() };
    for (const [i, name] of names.entries()) {
      failing = ([undefined, 'delete', 'put', undefined] as const)[i % 4];
      const storing = tier.store(name, block(name), i % 4 === 3 ? aborted : {});
      await (i < 2 || i % 4 === 0 ? storing.catch(() => 0) : expect(storing).rejects.toThrow());
      failing = undefined;
      const { residentBytes } = tier.usage('storage');
      let blobs = 0;
      for await (const { key } of memory.list('')) {
        expect(tier.matchCount([key.slice(-64)])).toBe(1);
        blobs += 1;
      }
      expect(blobs * blockBytes).toBe(residentBytes);
      tier.check();
    }
  });

  it('notices what another process evicted, and stores it again', async () => {
    const store = memoryStore();
    const tier = await open(store, 10, 10);
    const [a = '', b = '', c = ''] = names;
    for (const name of [a, b, c]) await tier.store(name, block(name));
    await open(store, 0, 1); // deletes what is more than one block
    await tier.refresh();
    expect([a, b, c].filter((name) => tier.matchCount([name]) === 1)).toHaveLength(1);
    tier.check();
    for (const name of [a, b, c]) expect(await tier.store(name, block(name))).toBe(true);
    expect((await open(store, 0, 10)).matchCount([a, b, c])).toBe(3);
  });

  it.each(['put', 'deleted'])(
    'reads a block that another process has %s meanwhile',
    async (how) => {
      const far = memoryStore();
      const [name = ''] = names;
      await (await open(far, 0, 4)).store(name, block(name));
      let conflicts = 0;
      const store = wrapStore(far, {
        // As a store that reads in several steps says it.
        async *get(key, options) {
          if (conflicts === 2) return yield* far.get(key, options);
          conflicts += 1;
          if (how === 'deleted') await far.delete(key);
          throw new VramError('conflict', `'${key}' was replaced or deleted while it was read`);
        },
      });
      const tier = await open(store, 0, 4);
      expect(await tier.load(name)).toEqual(how === 'put' ? block(name) : undefined);
      expect(conflicts).toBe(2);
      tier.check();
    },
  );

  it('serves many callers of one block at once', async () => {
    const tier = await open(memoryStore(), 4, 10);
    const some = names.slice(0, 8).flatMap((name) => [name, name, name]);
    await Promise.all(some.map((name) => tier.store(name, block(name))));
    const loaded = await Promise.all(some.map((name) => tier.load(name)));
    expect(loaded).toEqual(some.map(block));
    tier.check();
    // More blocks than fit, all at once: some are not kept, none is wrong.
    await Promise.all(names.map((name) => tier.store(name, block(name))));
    const more = await Promise.all(names.map((name) => tier.load(name)));
    for (const [i, found] of more.entries()) {
      if (found !== undefined) expect(found).toEqual(block(names[i] ?? ''));
    }
    expect(tier.usage('storage').residentBytes).toBe(10 * blockBytes);
    tier.check();
  });

  it('keeps its books when calls of the store fail', async () => {
    const { uniform: random } = seededRandom(5);
    const memory = memoryStore();
    const failing = chaoticStore(memory, { random, failureRate: 0.4 });
    // Listing works, so that the tier can be opened.
    const store = wrapStore(failing, { list: (...call) => memory.list(...call) });
    const tier = await open(store, 2, 5);
    let failures = 0;
    for (let i = 0; i < 100; i += 1) {
      const name = names[i % names.length] ?? '';
      try {
        await tier.store(name, block(name));
        const loaded = await tier.load(name);
        if (loaded !== undefined) expect(loaded).toEqual(block(name));
      } catch (error) {
        expect(error).toMatchObject({ code: 'unavailable' });
        failures += 1;
      }
      tier.check();
    }
    expect(failures).toBeGreaterThan(10);
  });
});

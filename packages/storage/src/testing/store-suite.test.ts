/** The suite fails a store that declares what it does not do, and one that breaks the contract. */
import { VramError } from '@vramkit/core';
import { describe, expect, it } from 'vitest';
import { memoryStore, type BlobStore, type StoreCapabilities } from '../index.js';
import { wrapStore } from '../layers/wrap.js';
import { describeStore } from './store-suite.js';
import { testBytes } from './store-test.js';

const options = { raceRounds: 2, pageKeys: 20, seeds: [1], steps: 60 };

/** Titles of the rules that fail. */
async function failing(factory: () => BlobStore): Promise<string[]> {
  const rules: (readonly [string, () => void | Promise<void>])[] = [];
  const api = {
    describe: (_: string, body: () => void) => body(),
    it: (title: string, body: () => void | Promise<void>) => void rules.push([title, body]),
    expect,
  };
  describeStore('a store', () => ({ store: factory() }), api, options);
  const failed: string[] = [];
  for (const [title, body] of rules) {
    const isKept = await Promise.resolve(body()).then(
      () => true,
      () => false,
    );
    if (!isKept) failed.push(title);
  }
  return failed;
}

/** A store that declares more than `store` has. */
function claiming(store: BlobStore, claims: Partial<StoreCapabilities>): BlobStore {
  return wrapStore(store, { capabilities: { ...store.capabilities, ...claims } });
}

/** A memory store whose puts drop a condition. */
function withoutConditions(): BlobStore {
  const memory = memoryStore();
  return wrapStore(memory, {
    put: (key, body, call) => memory.put(key, body, { signal: call?.signal }),
  });
}

/** A memory store in which no key can be below another one. */
function withoutNesting(): BlobStore {
  const memory = memoryStore();
  return wrapStore(memory, {
    async put(key, body, call) {
      for await (const other of memory.list('')) {
        const isNested = key.startsWith(`${other.key}/`) || other.key.startsWith(`${key}/`);
        if (isNested) throw new VramError('invalid-argument', 'file and folder');
      }
      return memory.put(key, body, call);
    },
  });
}

describe('the suite of stores', () => {
  it('passes a store that keeps every rule, and one that says what it has not', async () => {
    expect(await failing(() => memoryStore())).toEqual([]);
    const honest = { createIfAbsent: false, compareAndSwap: false, nestedKeys: false };
    const refusing = (): BlobStore => {
      const store = withoutNesting();
      const put: BlobStore['put'] = (key, body, call) => {
        if (call?.condition === undefined) return store.put(key, body, call);
        return Promise.reject(new VramError('unsupported', 'no conditions'));
      };
      return claiming(wrapStore(store, { put }), honest);
    };
    expect(await failing(refusing)).toEqual([]);
  });

  it.each<[keyof StoreCapabilities, () => BlobStore, string]>([
    ['createIfAbsent', withoutConditions, 'creates a blob only once'],
    ['compareAndSwap', withoutConditions, 'swaps only the version that was read'],
    ['nestedKeys', withoutNesting, 'puts a key below another one'],
    [
      'maxConditionalBytes',
      () => claiming(memoryStore(), { maxConditionalBytes: 1000 }), // and takes more
      'holds a conditional body up to its limit',
    ],
    [
      'durability',
      () => claiming(memoryStore(), { durability: 'synced' }),
      'keeps blobs for a client that is opened later',
    ],
  ])('fails a store that declares %s falsely', async (_, factory, title) => {
    const failed = await failing(factory);
    expect(failed.filter((rule) => rule.startsWith(title))).toHaveLength(1);
  });

  it('fails a store that can do what it does not declare', async () => {
    const claims = { createIfAbsent: false, compareAndSwap: false, nestedKeys: false };
    expect((await failing(() => claiming(memoryStore(), claims))).length).toBeGreaterThanOrEqual(3);
  });

  it.each<[string, (memory: BlobStore) => Partial<BlobStore>]>([
    [
      'loses the last byte of long reads',
      (memory) => ({
        async *get(key, call) {
          for await (const chunk of memory.get(key, call)) {
            yield chunk.length > 100_000 ? chunk.subarray(0, -1) : chunk;
          }
        },
      }),
    ],
    [
      'shows half of a put',
      (memory) => ({
        async put(key, body, call) {
          if (call?.condition === undefined)
            await memory.put(key, testBytes(77), { signal: call?.signal });
          return memory.put(key, body, call);
        },
      }),
    ],
    [
      'writes to a chunk that it has lent',
      (memory) => ({
        async *get(key, call) {
          const scratch = new Uint8Array(2 ** 20);
          for await (const chunk of memory.get(key, call)) {
            if (call?.lend !== true) yield chunk;
            for (let at = 0; call?.lend === true && at < chunk.length; at += scratch.length) {
              const part = chunk.subarray(at, at + scratch.length);
              scratch.set(part);
              setTimeout(() => scratch.fill(0), 0); // what should wait until the consumer is back
              yield scratch.subarray(0, part.length);
            }
          }
        },
      }),
    ],
    ['never deletes', () => ({ delete: () => Promise.resolve() })],
    [
      'gives one version to all puts',
      (memory) => ({
        put: async (...call) => ({ ...(await memory.put(...call)), version: 'v' }),
      }),
    ],
    [
      'lists without an order',
      (memory) => ({
        async *list(prefix, call) {
          const all = [];
          for await (const info of memory.list(prefix, call)) all.push(info);
          yield* all.reverse();
        },
      }),
    ],
    [
      'throws what is not typed',
      (memory) => ({
        head: (key, call) => {
          if (key.includes('..')) return Promise.reject(new Error('no'));
          return memory.head(key, call);
        },
      }),
    ],
  ])('fails a store that %s', async (_, change) => {
    const broken = (): BlobStore => {
      const memory = memoryStore();
      return wrapStore(memory, change(memory));
    };
    expect((await failing(broken)).length).toBeGreaterThan(0);
  });
});

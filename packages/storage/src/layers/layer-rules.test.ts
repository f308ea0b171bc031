/** What each layer adds: faults found, tries counted, limits kept, events told, parts reused. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TraceEvent } from '@vramkit/core';
import { seededRandom } from '@vramkit/core/testing';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import {
  chaoticStore,
  checksummedStore,
  FRAME_BYTES,
  memoryStore,
  posixStore,
  readBlob,
  retriedStore,
  stripedStore,
  sweepStripes,
  tracedStore,
  type BlobStore,
} from '../index.js';
import { testBytes } from '../testing.js';
import { wrapStore } from './wrap.js';

const bytes = (store: BlobStore, key: string) => readBlob(store, key);

const folders: string[] = [];

// One gives chunks of any size, the other chunks of whole frames.
describe.each<[string, () => BlobStore | Promise<BlobStore>]>([
  ['memory', memoryStore],
  [
    'files',
    async () => {
      const folder = await mkdtemp(join(tmpdir(), 'vramkit-layer-rules-'));
      folders.push(folder);
      return posixStore({ folder, chunkBytes: 300_000 });
    },
  ],
])('checksummed %s', (_, open) => {
  afterEach(async () => {
    for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
  });

  it('finds every flipped bit and every truncation, in whole reads and in ranges', async () => {
    const below = await open();
    const store = checksummedStore(below);
    const sizes = [0, 1, 1000, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...sizes),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        fc.constantFrom('flip', 'cut', 'extend'),
        async (size, where, damage) => {
          const data = testBytes(size);
          await store.put('a', data);
          const raw = await bytes(below, 'a');
          const at = Math.floor(where * raw.length);
          if (damage === 'flip') raw[at] = (raw[at] ?? 0) ^ (1 << (at % 8));
          const changed = { flip: raw, cut: raw.subarray(0, at), extend: extended(raw, at + 1) };
          await below.put('a', changed[damage]);
          for (const read of [() => drain(store.get('a')), () => bytes(store, 'a')]) {
            await expect(read()).rejects.toMatchObject({ code: 'corrupt-data' });
          }
          const offsetBytes = Math.min(at, Math.max(0, size - 1));
          const damaged = readBlob(store, 'a', { offsetBytes, lengthBytes: Math.min(1, size) });
          // A range is checked where it is read; its own frame has the damage here.
          if (damage === 'flip') {
            await expect(damaged).rejects.toMatchObject({ code: 'corrupt-data' });
          } else await damaged.catch(() => undefined);
        },
      ),
      { numRuns: 150, seed: 5 },
    );
  });

  it('finds frames that changed places and blobs cut between frames', async () => {
    const below = await open();
    const store = checksummedStore(below);
    await store.put('a', testBytes(3 * FRAME_BYTES));
    const raw = await bytes(below, 'a');
    const stride = FRAME_BYTES + 8;
    const frame = (i: number): Uint8Array => raw.subarray(i * stride, (i + 1) * stride);
    for (const order of [
      [1, 0, 2],
      [0, 1],
      [0, 2],
      [0, 0, 2],
      [0, 1, 2, 2],
    ]) {
      await below.put('a', new Uint8Array(Buffer.concat(order.map(frame))));
      for (const read of [() => drain(store.get('a')), () => bytes(store, 'a')]) {
        await expect(read()).rejects.toMatchObject({ code: 'corrupt-data' });
      }
    }
    await below.put('a', raw);
    expect(Buffer.compare(await bytes(store, 'a'), testBytes(3 * FRAME_BYTES))).toBe(0);
  });
});

describe('checksummed', () => {
  it('tells of a blob that was replaced between its size and its bytes', async () => {
    const memory = memoryStore();
    await checksummedStore(memory).put('a', testBytes(2_000_000));
    const replaced = wrapStore(memory, {
      async head(key, options) {
        const info = await memory.head(key, options);
        await checksummedStore(memory).put('a', testBytes(1_000_000));
        return info;
      },
    });
    const read = readBlob(checksummedStore(replaced), 'a', { lengthBytes: 10 });
    await expect(read).rejects.toMatchObject({ code: 'conflict' });
  });

  it('lists past a blob that was cut, which can be found and deleted', async () => {
    const below = memoryStore();
    const store = checksummedStore(below);
    await below.put('a', testBytes(7));
    await below.put('b', testBytes(FRAME_BYTES + 8 + 3));
    await store.put('c', testBytes(100));
    const list = async () => {
      const found: unknown[] = [];
      for await (const { key, sizeBytes } of store.list('')) found.push([key, sizeBytes]);
      return found;
    };
    expect(await list()).toEqual([
      ['a', 0],
      ['b', FRAME_BYTES],
      ['c', 100],
    ]);
    for (const key of ['a', 'b']) {
      await expect(store.head(key)).rejects.toMatchObject({ code: 'corrupt-data' });
      await expect(bytes(store, key)).rejects.toMatchObject({ code: 'corrupt-data' });
      await store.delete(key);
    }
    expect(await list()).toEqual([['c', 100]]);
  });

  it('turns flipped bits of a store below into errors, never into wrong bytes', async () => {
    const { uniform: random } = seededRandom(11);
    const memory = memoryStore();
    await checksummedStore(memory).put('a', testBytes(2_000_000));
    const store = checksummedStore(chaoticStore(memory, { random, flipRate: 0.3 }));
    let found = 0;
    for (let i = 0; i < 30; i += 1) {
      try {
        expect(Buffer.compare(await bytes(store, 'a'), testBytes(2_000_000))).toBe(0);
      } catch (error) {
        expect(error).toMatchObject({ code: 'corrupt-data', context: { key: 'a' } });
        found += 1;
      }
    }
    expect(found).toBeGreaterThan(0);
    expect(found).toBeLessThan(30);
  });
});

describe('retried', () => {
  it('gives up after its tries, and does not repeat what will not pass', async () => {
    const memory = memoryStore();
    let calls = 0;
    const counting = wrapStore(chaoticStore(memory, { random: () => 0.4, failureRate: 1 }), {
      head: () => {
        calls += 1;
        return chaoticStore(memory, { random: () => 0.4, failureRate: 1 }).head('a');
      },
    });
    const store = retriedStore(counting, { random: () => 0, tries: 4 });
    await expect(store.head('a')).rejects.toMatchObject({ code: 'unavailable', retryable: true });
    expect(calls).toBe(4);
    const sound = retriedStore(memory, { random: () => 0, tries: 4 });
    await expect(drain(sound.get('a'))).rejects.toMatchObject({ code: 'not-found' });
  });

  it('knows its own create again when only the answer was lost', async () => {
    const memory = memoryStore();
    let lost = 1;
    const losing = wrapStore(memory, {
      put: async (key, body, options) => {
        const info = await memory.put(key, body, options);
        if (lost-- > 0) await chaoticStore(memory, { random: () => 0.4, failureRate: 1 }).head(key);
        return info;
      },
    });
    const store = retriedStore(losing, { random: () => 0 });
    const condition = 'absent';
    await store.put('a', testBytes(10, 1), { condition });
    lost = 1;
    await expect(store.put('a', testBytes(10, 2), { condition })).rejects.toMatchObject({
      code: 'conflict',
    });
    expect(await bytes(store, 'a')).toEqual(testBytes(10, 1));
  });
});

describe('traced', () => {
  it('tells each call once, with bytes and codes, and no body', async () => {
    const events: TraceEvent[] = [];
    let nowMs = 0;
    const store = tracedStore(memoryStore(), {
      sink: (event) => void events.push(event),
      clock: () => (nowMs += 1),
    });
    await store.put('a', testBytes(100));
    await drain(store.get('a', { lengthBytes: 40 }));
    await store.head('a');
    await expect(drain(store.get('b'))).rejects.toThrow();
    await expect(store.put('a', testBytes(1), { condition: 'absent' })).rejects.toThrow();
    await store.delete('a');
    expect(events.map((event) => `${event.type} ${'label' in event ? event.label : ''}`)).toEqual([
      'transfer put a',
      'transfer get a',
      'phase head a',
      'transfer get b not-found',
      'transfer put a conflict',
      'phase delete a',
    ]);
    expect(events.slice(0, 2)).toMatchObject([{ sizeBytes: 100 }, { sizeBytes: 40 }]);
  });
});

describe('striped', () => {
  it('spreads stripes, removes what is replaced, and sweeps what dead writers left', async () => {
    const stores = [memoryStore(), memoryStore(), memoryStore()] as const;
    const store = stripedStore(stores, { stripeBytes: 4096 });
    await store.put('a', testBytes(40_000));
    await store.put('a', testBytes(20_000, 2));
    const counts = await Promise.all(stores.map((each) => count(each, 'stripe/')));
    expect(counts).toEqual([2, 2, 1]);
    await stores[1].put('stripe/dead/1', testBytes(10));
    expect(await sweepStripes(stores)).toBe(1);
    expect(Buffer.compare(await bytes(store, 'a'), testBytes(20_000, 2))).toBe(0);
    await store.delete('a');
    expect(await Promise.all(stores.map((each) => count(each, '')))).toEqual([0, 0, 0]);
  });
});

async function drain(chunks: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const chunk of chunks) expect(chunk).toBeInstanceOf(Uint8Array);
}

async function count(store: BlobStore, prefix: string): Promise<number> {
  let total = 0;
  for await (const { key } of store.list(prefix)) total += key.length > 0 ? 1 : 0;
  return total;
}

function extended(raw: Uint8Array, byteCount: number): Uint8Array {
  const longer = new Uint8Array(raw.length + byteCount);
  longer.set(raw);
  return longer;
}

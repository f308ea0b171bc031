/** The limits in time and number: what they end, what waits, and what is kept of neither. */
import { describe, expect, it } from 'vitest';
import {
  limitedStore,
  memoryStore,
  readBlob,
  retriedStore,
  timedStore,
  type BlobBody,
  type BlobStore,
  type GetOptions,
} from '../index.js';
import { isReplayable } from '../blob-body.js';
import { testBytes } from '../testing.js';
import { wrapStore } from './wrap.js';

describe('timed', () => {
  it('leaves a store that hangs, and tells it', async () => {
    let told: AbortSignal | undefined;
    const hanging = wrapStore(memoryStore(), {
      head: (_, options) => {
        told = options?.signal;
        return new Promise(() => undefined);
      },
      async *get() {
        await new Promise(() => undefined);
      },
    });
    const store = timedStore(hanging, { timeoutMs: 20 });
    await expect(store.head('a')).rejects.toMatchObject({ code: 'timeout', retryable: true });
    expect(told?.aborted).toBe(true);
    await expect(drain(store.get('a'))).rejects.toMatchObject({ code: 'timeout' });
  });

  it("keeps a get that it may give up out of the caller's memory", async () => {
    const memory = memoryStore();
    await memory.put('a', new Uint8Array(10));
    const asked: GetOptions[] = [];
    const watched = wrapStore(memory, {
      get: (key, options = {}) => {
        asked.push(options);
        return memory.get(key, options);
      },
    });
    const options = { lengthBytes: 10, into: new Uint8Array(10) };
    await drain(timedStore(watched, { timeoutMs: 1000 }).get('a', options));
    expect(asked.map(({ lengthBytes, into }) => [lengthBytes, into])).toEqual([[10, undefined]]);
  });
});

/** A memory store whose head never ends. */
const hanging = (): BlobStore =>
  wrapStore(memoryStore(), { head: () => new Promise(() => undefined) });

describe('limited', () => {
  it('copies within one store, a place for each call', async () => {
    for (const rate of [undefined, { bytesPerSecond: 1e9, clock: () => performance.now() }]) {
      const store = limitedStore(memoryStore(), { maxCalls: 1, ...(rate && { rate }) });
      await store.put('a', testBytes(3_000_000));
      const copies = Array.from({ length: 4 }, (_, i) => store.put(`b${i}`, store.get('a')));
      await Promise.all(copies);
      expect(Buffer.compare(await readBlob(store, 'b3'), testBytes(3_000_000))).toBe(0);
      // A copy that fails leaves no place taken.
      await expect(store.put('b', store.get('missing'))).rejects.toMatchObject({
        code: 'not-found',
      });
      await store.head('a');
    }
  });

  it('has the whole limit again after a put that left its body', async () => {
    let give = (): void => undefined;
    const late = new Promise<void>((resolve) => (give = resolve));
    async function* body() {
      await late;
      yield testBytes(1);
    }
    const timed = timedStore(memoryStore(), { timeoutMs: 20 });
    const store = limitedStore(timed, { maxCalls: 1 });
    await expect(store.put('a', body())).rejects.toMatchObject({ code: 'timeout' });
    give();
    await new Promise((resolve) => setTimeout(resolve, 5));
    for (let i = 0; i < 3; i += 1) expect(await store.head('a')).toBeUndefined();
  });

  it('hands on whether a body can be read again', async () => {
    const bodies: BlobBody[] = [];
    const watched = wrapStore(memoryStore(), {
      put: (key, body) => {
        bodies.push(body);
        return memoryStore().put(key, body);
      },
    });
    const store = limitedStore(watched, { maxCalls: 1 });
    async function* once() {
      yield testBytes(1);
    }
    await store.put('a', once());
    await store.put('a', { [Symbol.asyncIterator]: once });
    expect(bodies.map(isReplayable)).toEqual([false, true]);
  });

  it('leaves the queue at the signal, and takes no place with it', async () => {
    let hang = true;
    const memory = memoryStore();
    let end = (): void => undefined;
    const store = limitedStore(
      wrapStore(memory, {
        head: (key) =>
          hang ? new Promise((resolve) => (end = () => resolve(undefined))) : memory.head(key),
      }),
      { maxCalls: 1 },
    );
    const first = store.head('a');
    const controller = new AbortController();
    const { signal } = controller;
    const waiting = [store.put('b', testBytes(1), { signal }), drain(store.get('a', { signal }))];
    const settled = Promise.allSettled(waiting);
    setTimeout(() => controller.abort(), 5);
    for (const result of await settled) {
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'aborted' } });
    }
    hang = false;
    end();
    await first;
    expect(await store.head('b')).toBeUndefined();
  });

  it('around a timeout has its places again when calls hang', async () => {
    const limited = limitedStore(timedStore(hanging(), { timeoutMs: 10 }), { maxCalls: 2 });
    const store = retriedStore(limited, { random: () => 0, tries: 2 });
    const calls = Array.from({ length: 6 }, () => store.head('a'));
    for (const result of await Promise.allSettled(calls)) {
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'timeout' } });
    }
    expect(await store.put('a', testBytes(1))).toMatchObject({ sizeBytes: 1 });
  });

  it('has no more calls in flight than it may, and lets each pass', async () => {
    let inFlight = 0;
    let most = 0;
    const watched = wrapStore(memoryStore(), {
      head: async () => {
        most = Math.max(most, ++inFlight);
        await new Promise((resolve) => setTimeout(resolve, 2));
        inFlight -= 1;
        return undefined;
      },
    });
    const store = limitedStore(watched, { maxCalls: 3 });
    await Promise.all(Array.from({ length: 20 }, () => store.head('a')));
    expect(most).toBe(3);
  });

  it('books the time that bytes take', async () => {
    let nowMs = 0;
    const clock = (): number => (nowMs += 0.001);
    const store = limitedStore(memoryStore(), { rate: { bytesPerSecond: 1e6, clock } });
    const before = performance.now();
    await store.put('a', testBytes(50_000)); // 50 ms at 1 MB/s
    await drain(store.get('a'));
    expect(performance.now() - before).toBeGreaterThan(90);
  });
});

describe('a signal that outlives many calls', () => {
  it('keeps nothing of a timed or a waiting call', async () => {
    const { signal } = new AbortController();
    let [listeners, most] = [0, 0];
    const counted = Object.assign(Object.create(signal) as AbortSignal, {
      addEventListener: () => void (most = Math.max(most, (listeners += 1))),
      removeEventListener: () => void (listeners -= 1),
    });
    Object.defineProperty(counted, 'aborted', { value: false });
    const memory = memoryStore();
    await memory.put('a', testBytes(10));
    const timed = timedStore(memory, { timeoutMs: 1000 });
    const both = limitedStore(timed, { maxCalls: 1 });
    const options = { signal: counted };
    await timed.head('a', options);
    await drain(timed.get('a', options));
    expect([listeners, most]).toEqual([0, 1]);
    for (let i = 0; i < 3; i += 1) {
      await Promise.all([both.head('a', options), both.head('a', options)]);
      await drain(both.get('a', options));
      timed.get('a', options); // never begun
    }
    expect(listeners).toBe(0);
  });

  it('still ends a timed call', async () => {
    const controller = new AbortController();
    let told: AbortSignal | undefined;
    const watched = wrapStore(memoryStore(), {
      head: async (_, options) => {
        told = options?.signal;
        controller.abort('enough');
        return undefined;
      },
    });
    await timedStore(watched, { timeoutMs: 1000 }).head('a', { signal: controller.signal });
    expect(told).toMatchObject({ aborted: true, reason: 'enough' });
  });
});

async function drain(chunks: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const chunk of chunks) expect(chunk).toBeInstanceOf(Uint8Array);
}

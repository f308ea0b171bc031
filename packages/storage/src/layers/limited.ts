/**
 * Bounds how much a store is asked at once: calls in flight, and bytes per second.
 *
 * Calls wait in order of arrival. A get or a list counts while a step of it runs, not while its
 * consumer thinks, so a consumer that makes another call cannot wait for itself. Bytes follow a
 * leaky bucket: each chunk books the time that it takes at the rate, after what is booked already.
 */
import { assertArgument, checkInteger, throwIfAborted, type Clock } from '@vramkit/core';
import { chunksOf } from '../blob-body.js';
import type { BlobStore } from '../blob-store.js';
import { sleep, wrapStore } from './wrap.js';

/** Options of {@link limitedStore}. */
export interface StoreLimitOptions {
  /** Most calls in flight. Default: no limit. */
  readonly maxCalls?: number;
  /** Most bytes of bodies per second, both ways together. Default: no limit. */
  readonly rate?: {
    readonly bytesPerSecond: number;
    /** Milliseconds; `performance.now` fits. */
    readonly clock: Clock;
  };
}

/** A store that is asked no more than the limits; `upstream` stays the caller's. */
export function limitedStore(upstream: BlobStore, options: StoreLimitOptions): BlobStore {
  const { maxCalls = Infinity, rate } = options;
  if (maxCalls !== Infinity) checkInteger('maxCalls', maxCalls, 1);
  assertArgument(rate === undefined || rate.bytesPerSecond > 0, 'bytesPerSecond is positive');
  const slots = new Slots(maxCalls);
  let freeAtMs = -Infinity;

  const book = async (sizeBytes: number, signal?: AbortSignal): Promise<void> => {
    if (rate === undefined) return;
    const now = rate.clock();
    const start = Math.max(now, freeAtMs);
    freeAtMs = start + (sizeBytes / rate.bytesPerSecond) * 1000;
    if (freeAtMs > now) await sleep(freeAtMs - now, signal);
  };
  async function* booked(chunks: AsyncIterable<Uint8Array>, signal?: AbortSignal) {
    for await (const chunk of chunks) {
      await book(chunk.length, signal);
      yield chunk;
    }
  }
  async function* steps<Item>(items: AsyncIterable<Item>, signal?: AbortSignal) {
    const iterator = items[Symbol.asyncIterator]();
    try {
      for (;;) {
        const step = await slots.hold(() => iterator.next(), signal);
        if (step.done === true) return;
        yield step.value;
      }
    } finally {
      await iterator.return?.();
    }
  }

  return wrapStore(upstream, {
    put: (key, body, putOptions = {}) => {
      const { signal } = putOptions;
      const paced = rate === undefined ? body : { [Symbol.asyncIterator]: () => pace() };
      const pace = () => booked(chunksOf(body), signal);
      const sizeBytes = body instanceof Uint8Array ? body.length : putOptions.sizeBytes;
      return slots.hold(() => upstream.put(key, paced, { ...putOptions, sizeBytes }), signal);
    },
    head: (key, call) => slots.hold(() => upstream.head(key, call), call?.signal),
    delete: (key, call) => slots.hold(() => upstream.delete(key, call), call?.signal),
    get: (key, call) => booked(steps(upstream.get(key, call), call?.signal), call?.signal),
    list: (prefix, call) => steps(upstream.list(prefix, call), call?.signal),
  });
}

/** Permits, given in order of arrival. */
class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  async hold<Result>(call: () => Promise<Result>, signal?: AbortSignal): Promise<Result> {
    if (this.#free > 0) this.#free -= 1;
    // The one who leaves hands over its permit.
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      throwIfAborted(signal);
      return await call();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}

/**
 * Bounds how much a store is asked at once: calls in flight, and bytes per second.
 *
 * Calls wait in order of arrival. A get or a list counts while a step of it runs, not while its
 * consumer thinks, and a put not while it waits for its body: a consumer that makes another call,
 * and a body that comes from the same store, cannot wait for themselves. Bytes follow a leaky
 * bucket: each chunk books the time that it takes at the rate, after what is booked already.
 *
 * A call that never ends keeps its place: put this layer around one that gives up (`timedStore`).
 */
import { assertArgument, checkInteger, throwIfAborted, type Clock } from '@vramkit/core';
import { bodyOf, chunksOf } from '../blob-body.js';
import type { BlobStore } from '../blob-store.js';
import { sleep, unlessAborted, wrapStore } from './wrap.js';

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
  async function* steps<Item>(items: AsyncIterable<Item>, around: Around) {
    const iterator = items[Symbol.asyncIterator]();
    try {
      for (;;) {
        const step = await around(() => iterator.next());
        if (step.done === true) return;
        yield step.value;
      }
    } finally {
      await iterator.return?.();
    }
  }
  const held = (signal?: AbortSignal): Around => {
    return (step) => slots.hold(step, signal);
  };

  return wrapStore(upstream, {
    put: (key, body, putOptions = {}) => {
      const { signal } = putOptions;
      const sizeBytes = body instanceof Uint8Array ? body.length : putOptions.sizeBytes;
      const sized = { ...putOptions, sizeBytes };
      return slots.hold((without) => {
        if (rate === undefined && body instanceof Uint8Array) return upstream.put(key, body, sized);
        const pace = () => booked(steps(chunksOf(body, { signal }), without), signal);
        return upstream.put(key, bodyOf(body, pace), sized);
      }, signal);
    },
    head: (key, call) => slots.hold(() => upstream.head(key, call), call?.signal),
    delete: (key, call) => slots.hold(() => upstream.delete(key, call), call?.signal),
    get: (key, call) => booked(steps(upstream.get(key, call), held(call?.signal)), call?.signal),
    list: (prefix, call) => steps(upstream.list(prefix, call), held(call?.signal)),
  });
}

/** Runs a step of a call. */
type Around = <Result>(step: () => Promise<Result>) => Promise<Result>;

/** Permits, given in order of arrival. */
class Slots {
  #free: number;
  readonly #waiting = new Set<() => void>();

  constructor(count: number) {
    this.#free = count;
  }

  /** Runs a call with a permit; the call is given what runs a step of it without one. */
  async hold<Result>(
    call: (without: Around) => Promise<Result>,
    signal?: AbortSignal,
  ): Promise<Result> {
    await this.#take(signal);
    let isHeld = true;
    let isOver = false;
    let taking: Promise<void> | undefined;
    const release = (): void => {
      if (isHeld) this.#give();
      isHeld = false;
    };
    const retake = async (): Promise<void> => {
      await this.#take(signal).finally(() => (taking = undefined));
      isHeld = true;
      // Nobody waits for the steps of a call that has failed.
      if (isOver) release();
    };
    try {
      return await call(async (step) => {
        release();
        try {
          return await step();
        } finally {
          if (!isHeld && !isOver) await (taking ??= retake());
        }
      });
    } finally {
      isOver = true;
      release();
    }
  }

  async #take(signal: AbortSignal | undefined): Promise<void> {
    throwIfAborted(signal);
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    let enter = (): void => undefined;
    const turn = new Promise<void>((resolve) => this.#waiting.add((enter = resolve)));
    try {
      await unlessAborted(turn, signal);
    } catch (error) {
      // Out of the queue, or with a permit that came at the same time.
      if (!this.#waiting.delete(enter)) this.#give();
      throw error;
    }
  }

  /** The one who leaves hands over its permit. */
  #give(): void {
    const [next] = this.#waiting;
    if (next === undefined) this.#free += 1;
    else {
      this.#waiting.delete(next);
      next();
    }
  }
}

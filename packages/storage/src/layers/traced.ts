/**
 * One event per put, get, head, list and delete, for a timeline.
 *
 * A put is an `upload` and a get a `download` of its bytes; the rest are phases. The label has the
 * call, the key, and the code where it failed; never a body, an address or a credential. A get is
 * timed from its first step to its last, the consumer's own time included.
 */
import { isVramError, type Clock, type TraceSink } from '@vramkit/core';
import { bodyOf } from '../blob-body.js';
import type { BlobStore } from '../blob-store.js';
import { wrapStore } from './wrap.js';

/** Options of {@link tracedStore}. */
export interface StoreTraceOptions {
  /** Receives the events. */
  readonly sink: TraceSink;
  /** Milliseconds; `performance.now` fits. */
  readonly clock: Clock;
}

/** A store whose calls are events; `upstream` stays the caller's. */
export function tracedStore(upstream: BlobStore, options: StoreTraceOptions): BlobStore {
  const phase = async <Result>(call: string, run: () => Promise<Result>): Promise<Result> => {
    const span = new Span(call, options);
    try {
      return await run().catch((error: unknown) => span.fail(error));
    } finally {
      span.end();
    }
  };
  return wrapStore(upstream, {
    async put(key, body, putOptions) {
      const span = new Span(`put ${key}`, options);
      try {
        const counted = body instanceof Uint8Array ? body : bodyOf(body, () => span.count(body));
        const info = await upstream.put(key, counted, putOptions);
        span.sizeBytes = info.sizeBytes;
        return info;
      } catch (error) {
        return span.fail(error);
      } finally {
        span.end('upload');
      }
    },
    async *get(key, getOptions) {
      const span = new Span(`get ${key}`, options);
      try {
        yield* span.count(upstream.get(key, getOptions));
      } catch (error) {
        span.fail(error);
      } finally {
        span.end('download');
      }
    },
    head: (key, call) => phase(`head ${key}`, () => upstream.head(key, call)),
    delete: (key, call) => phase(`delete ${key}`, () => upstream.delete(key, call)),
    async *list(prefix, listOptions) {
      const span = new Span(`list ${prefix}`, options);
      try {
        yield* upstream.list(prefix, listOptions);
      } catch (error) {
        span.fail(error);
      } finally {
        span.end();
      }
    },
  });
}

/** One call from its beginning to its event. */
class Span {
  sizeBytes = 0;
  readonly #call: string;
  readonly #options: StoreTraceOptions;
  readonly #timeMs: number;
  #label: string;

  constructor(call: string, options: StoreTraceOptions) {
    this.#call = call;
    this.#label = call;
    this.#options = options;
    this.#timeMs = options.clock();
  }

  /** Passes chunks on and counts their bytes, from 0 each time the body is read. */
  async *count(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
    this.sizeBytes = 0;
    for await (const chunk of chunks) {
      this.sizeBytes += chunk.length;
      yield chunk;
    }
  }

  fail(error: unknown): never {
    this.#label = `${this.#call} ${isVramError(error) ? error.code : 'failed'}`;
    throw error;
  }

  end(direction?: 'upload' | 'download'): void {
    const { sink, clock } = this.#options;
    const timeMs = this.#timeMs;
    const span = { timeMs, durationMs: clock() - timeMs, label: this.#label };
    if (direction === undefined) sink({ type: 'phase', ...span });
    else sink({ type: 'transfer', ...span, direction, sizeBytes: this.sizeBytes });
  }
}

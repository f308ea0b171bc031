/**
 * Tries again what failed for a reason that passes: errors whose `retryable` is true.
 *
 * Between tries it waits a random part of a bound that doubles (full jitter; Brooker, "Exponential
 * Backoff and Jitter", 2015), so that many clients do not return at once.
 *
 * What may be repeated, and how:
 * - A body that can be read only once (a generator's result, a stream) is tried once.
 * - A put whose condition is `absent` may have been applied although it failed; if a later try says
 *   `conflict` and the stored bytes equal the body, it was, and the put has succeeded. Two writers
 *   of equal bytes both succeed, so a lock's body must name its owner.
 * - A put whose condition is a version is not repeated: with equal bytes nobody could tell whose
 *   put was applied. Its caller reads again.
 * - A get of up to one preferred chunk is held back until it is whole, and begins again; a longer
 *   one goes on where it broke, of the same version. A list goes on after the last key.
 */
import { assertArgument, checkInteger, isVramError } from '@vramkit/core';
import { gather, isReplayable } from '../blob-body.js';
import type {
  BlobBody,
  BlobInfo,
  BlobStore,
  GetOptions,
  ListOptions,
  PutOptions,
} from '../blob-store.js';
import { conflictError, failNotFound } from '../store-error.js';
import { sleep, wrapStore } from './wrap.js';

/** Options of {@link retriedStore}. */
export interface RetryOptions {
  /** Numbers in [0, 1), for the jitter; `Math.random` fits. */
  readonly random: () => number;
  /** Most tries of one call, the first included. Default: 6. */
  readonly tries?: number;
  /** Bound of the first wait. Default: 50 ms. */
  readonly baseDelayMs?: number;
  /** Bound of any wait. Default: 5,000 ms. */
  readonly maxDelayMs?: number;
}

/** A store that tries again; `upstream` stays the caller's. */
export function retriedStore(upstream: BlobStore, options: RetryOptions): BlobStore {
  const { random, tries = 6, baseDelayMs = 50, maxDelayMs = 5000 } = options;
  checkInteger('tries', tries, 1, 1000);
  assertArgument(baseDelayMs >= 0 && maxDelayMs >= baseDelayMs, 'delays grow from 0');

  /** Waits before try `next`, or throws where there is none. */
  const waitFor = async (next: number, error: unknown, signal?: AbortSignal): Promise<void> => {
    if (!isVramError(error) || !error.retryable || next > tries) throw error;
    const boundMs = Math.min(maxDelayMs, baseDelayMs * 2 ** (next - 2));
    await sleep(random() * boundMs, signal);
  };
  const repeat = async <Result>(
    call: (attempt: number) => Promise<Result>,
    signal: AbortSignal | undefined,
  ): Promise<Result> => {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await call(attempt);
      } catch (error) {
        await waitFor(attempt + 1, error, signal);
      }
    }
  };

  return wrapStore(upstream, {
    put: async (key, body, putOptions = {}) => {
      const { condition, signal } = putOptions;
      const isOnce = !isReplayable(body) || (condition !== undefined && condition !== 'absent');
      if (isOnce) return upstream.put(key, body, putOptions);
      return repeat((attempt) => putAgain(upstream, key, body, putOptions, attempt), signal);
    },
    head: (key, callOptions) => repeat(() => upstream.head(key, callOptions), callOptions?.signal),
    delete: (key, callOptions) =>
      repeat(() => upstream.delete(key, callOptions), callOptions?.signal),
    get: (key, getOptions = {}) => getAgain(upstream, key, getOptions, repeat, waitFor),
    list: (prefix, listOptions = {}) => listAgain(upstream, prefix, listOptions, waitFor),
  });
}

type Repeat = <Result>(
  call: (attempt: number) => Promise<Result>,
  signal: AbortSignal | undefined,
) => Promise<Result>;
type WaitFor = (next: number, error: unknown, signal?: AbortSignal) => Promise<void>;

async function putAgain(
  upstream: BlobStore,
  key: string,
  body: BlobBody,
  options: PutOptions,
  attempt: number,
): Promise<BlobInfo> {
  try {
    return await upstream.put(key, body, options);
  } catch (error) {
    if (attempt === 1 || options.condition !== 'absent' || !isVramError(error, 'conflict')) {
      throw error;
    }
    const info = await upstream.head(key);
    if (info === undefined || !(await holds(upstream, info, body))) throw error;
    return info;
  }
}

/** Whether a blob's bytes are those of `body`. */
async function holds(store: BlobStore, info: BlobInfo, body: BlobBody): Promise<boolean> {
  const wanted = body instanceof Uint8Array ? body : await gather(body);
  if (wanted.length !== info.sizeBytes) return false;
  let at = 0;
  for await (const chunk of store.get(info.key, { version: info.version, lend: true })) {
    if (!chunk.every((byte, index) => byte === wanted[at + index])) return false;
    at += chunk.length;
  }
  return at === wanted.length;
}

async function* getAgain(
  upstream: BlobStore,
  key: string,
  options: GetOptions,
  repeat: Repeat,
  waitFor: WaitFor,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { signal, lend, offsetBytes = 0 } = options;
  const { preferredChunkBytes } = upstream.capabilities;
  const isShort = (): boolean => lengthBytes !== undefined && lengthBytes <= preferredChunkBytes;
  let { version, lengthBytes } = options;
  if (!isShort() && (version === undefined || lengthBytes === undefined)) {
    const info = await repeat(() => upstream.head(key, { signal }), signal);
    version ??= (info ?? failNotFound(upstream.name, key)).version;
    if (info !== undefined && info.sizeBytes >= offsetBytes) {
      lengthBytes ??= info.sizeBytes - offsetBytes;
    }
  }
  if (isShort()) {
    // Of the caller's version only: a blob that was replaced since the head is as good.
    yield* await repeat(async () => {
      const chunks: Uint8Array[] = [];
      let sizeBytes = 0;
      for await (const chunk of upstream.get(key, { ...options, lend: false })) {
        chunks.push(chunk);
        sizeBytes += chunk.length;
        if (sizeBytes <= preferredChunkBytes) continue;
        throw conflictError(upstream.name, key, 'was replaced by a larger one while it was read');
      }
      return chunks;
    }, signal);
    return;
  }
  let got = 0;
  for (let failures = 0; ;) {
    try {
      const rest = lengthBytes === undefined ? undefined : lengthBytes - got;
      const range = { offsetBytes: offsetBytes + got, lengthBytes: rest, version, lend };
      for await (const chunk of upstream.get(key, { ...range, signal })) {
        got += chunk.length;
        failures = 0;
        yield chunk;
      }
      return;
    } catch (error) {
      failures += 1;
      await waitFor(failures + 1, error, signal);
    }
  }
}

async function* listAgain(
  upstream: BlobStore,
  prefix: string,
  options: ListOptions,
  waitFor: WaitFor,
): AsyncGenerator<BlobInfo, void, undefined> {
  let { startAfter, limit } = options;
  for (let failures = 0; ;) {
    try {
      for await (const info of upstream.list(prefix, { ...options, startAfter, limit })) {
        startAfter = info.key;
        if (limit !== undefined) limit -= 1;
        failures = 0;
        yield info;
      }
      return;
    } catch (error) {
      failures += 1;
      await waitFor(failures + 1, error, options.signal);
    }
  }
}

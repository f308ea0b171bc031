/** What layers share: a store that forwards to another, but for the calls that a layer changes. */
import { VramError } from '@vramkit/core';
import type { BlobStore } from '../blob-store.js';

/** A store over `upstream` in which `changed` stands in for its calls. */
export function wrapStore(upstream: BlobStore, changed: Partial<BlobStore>): BlobStore {
  return {
    name: upstream.name,
    capabilities: upstream.capabilities,
    put: (key, body, options) => upstream.put(key, body, options),
    get: (key, options) => upstream.get(key, options),
    head: (key, options) => upstream.head(key, options),
    list: (prefix, options) => upstream.list(prefix, options),
    delete: (key, options) => upstream.delete(key, options),
    ...changed,
  };
}

/**
 * What `result` settles with, unless the signal fires first; nothing stays on the signal.
 * @throws VramError `aborted`.
 */
export function unlessAborted<Result>(
  result: Promise<Result>,
  signal: AbortSignal | undefined,
): Promise<Result> {
  if (signal === undefined) return result;
  let leave = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    leave = () => reject(new VramError('aborted', 'the caller aborted', { cause: signal.reason }));
    if (signal.aborted) leave();
    signal.addEventListener('abort', leave);
  });
  return Promise.race([result, aborted]).finally(() => {
    signal.removeEventListener('abort', leave);
  });
}

/** Waits; the signal ends it early. @throws VramError `aborted`. */
export function sleep(durationMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const aborted = (): void => {
      clearTimeout(timer);
      reject(new VramError('aborted', 'the caller aborted the wait', { cause: signal?.reason }));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', aborted);
      resolve();
    }, durationMs);
    if (signal?.aborted === true) aborted();
    else signal?.addEventListener('abort', aborted, { once: true });
  });
}

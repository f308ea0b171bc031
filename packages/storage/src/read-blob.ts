/** A blob, or a range of it, in one array: by one get, or by ranges in parallel. */
import { assertInvariant, checkInteger, fail, throwIfAborted } from '@vramkit/core';
import { gather } from './blob-body.js';
import type { BlobStore, GetOptions } from './blob-store.js';
import { inParallel } from './parallel.js';
import { failNotFound } from './store-error.js';

/** Options of {@link readBlob}. */
export interface ReadBlobOptions extends GetOptions {
  /** Gets in flight at once, of the store's preferred size each. Default: 1, a single get. */
  readonly parallelGets?: number;
}

/**
 * Reads a range into one array. Parallel gets are all of one version. Without a length a small blob
 * takes one call of the store; a large one is held twice while its chunks are joined.
 * @throws VramError as {@link BlobStore.get}; `corrupt-data` where fewer or more bytes came.
 */
export async function readBlob(
  store: BlobStore,
  key: string,
  options: ReadBlobOptions = {},
): Promise<Uint8Array> {
  const { offsetBytes = 0, parallelGets = 1, into, signal } = options;
  checkInteger('parallelGets', parallelGets, 1, 1024);
  throwIfAborted(signal);
  let { lengthBytes, version } = options;
  if (lengthBytes === undefined && parallelGets === 1 && into === undefined) {
    return gather(store.get(key, { offsetBytes, version, signal }));
  }
  if (lengthBytes === undefined || (parallelGets > 1 && version === undefined)) {
    const info = (await store.head(key, { signal })) ?? failNotFound(store.name, key);
    version ??= info.version;
    lengthBytes ??= Math.max(0, info.sizeBytes - offsetBytes);
  }
  const target = into ?? new Uint8Array(lengthBytes);
  if (target.length !== lengthBytes) {
    fail('invalid-argument', `into has ${target.length} B, the range has ${lengthBytes} B`);
  }
  const step =
    parallelGets === 1 ? Math.max(1, lengthBytes) : store.capabilities.preferredChunkBytes;
  const count = Math.max(1, Math.ceil(lengthBytes / step));
  await inParallel(count, parallelGets, async (index) => {
    const part = target.subarray(index * step, Math.min(target.length, (index + 1) * step));
    let at = 0;
    for await (const chunk of store.get(key, {
      offsetBytes: offsetBytes + index * step,
      lengthBytes: part.length,
      version,
      into: part,
      lend: true,
      signal,
    })) {
      if (at + chunk.length > part.length) fail('corrupt-data', `'${key}' gave too many bytes`);
      const isThere = chunk.buffer === part.buffer && chunk.byteOffset === part.byteOffset + at;
      if (!isThere) part.set(chunk, at);
      at += chunk.length;
    }
    if (at < part.length) {
      fail('corrupt-data', `'${key}' gave ${at} of ${part.length} B`, { key, gotBytes: at });
    }
  });
  assertInvariant(target.length === lengthBytes, 'the range was read whole');
  return target;
}

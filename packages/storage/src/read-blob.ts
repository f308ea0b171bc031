/** A blob, or a range of it, in one array: by one get, or by ranges in parallel. */
import { assertInvariant, checkInteger, fail, throwIfAborted, VramError } from '@vramkit/core';
import { joined } from './blob-body.js';
import { checkRange } from './blob-key.js';
import type { BlobStore, GetOptions } from './blob-store.js';
import { inParallel } from './parallel.js';
import { failNotFound } from './store-error.js';

/** Options of {@link readBlob}. */
export interface ReadBlobOptions extends GetOptions {
  /** Gets in flight at once, of the store's preferred size each. Default: 1, a single get. */
  readonly parallelGets?: number;
}

/**
 * Reads a range into one array. Parallel gets are all of one version. Without a length it is a
 * single get; a large blob is held twice then, but from stores that know its size before they read
 * it: files, S3, stripes of RADOS.
 * @throws VramError as {@link BlobStore.get}; `corrupt-data` where fewer or more bytes came.
 */
export async function readBlob(
  store: BlobStore,
  key: string,
  options: ReadBlobOptions = {},
): Promise<Uint8Array> {
  const { offsetBytes = 0, parallelGets = 1, into, signal } = options;
  checkInteger('parallelGets', parallelGets, 1, 1024);
  checkRange(offsetBytes, options.lengthBytes);
  throwIfAborted(signal);
  let { lengthBytes, version } = options;
  if (lengthBytes === undefined && parallelGets === 1 && into === undefined) {
    return readAll(store, key, options);
  }
  if (lengthBytes === undefined || (parallelGets > 1 && version === undefined)) {
    const info = (await store.head(key, { signal })) ?? failNotFound(store.name, key);
    version ??= info.version;
    lengthBytes ??= Math.max(0, info.sizeBytes - offsetBytes);
  }
  const target = (typeof into === 'function' ? into(lengthBytes) : into) ?? newMemory(lengthBytes);
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
      place(key, chunk, part, at);
      at += chunk.length;
    }
    checkWhole(key, at, part);
  });
  assertInvariant(target.length === lengthBytes, 'the range was read whole');
  return target;
}

/** @throws VramError `invalid-argument` for more than an array can have. */
function newMemory(sizeBytes: number): Uint8Array {
  try {
    return new Uint8Array(sizeBytes);
  } catch (cause) {
    const message = `no array has ${sizeBytes} B; read smaller ranges`;
    throw new VramError('invalid-argument', message, { context: { sizeBytes }, cause });
  }
}

/** All from an offset on, by one get. */
async function readAll(
  store: BlobStore,
  key: string,
  { offsetBytes, version, signal }: ReadBlobOptions,
): Promise<Uint8Array> {
  let target: Uint8Array | undefined;
  const into = (sizeBytes: number): Uint8Array => (target = newMemory(sizeBytes));
  const chunks: Uint8Array[] = [];
  let at = 0;
  for await (const chunk of store.get(key, { offsetBytes, version, signal, into })) {
    if (target === undefined) chunks.push(chunk);
    else place(key, chunk, target, at);
    at += chunk.length;
  }
  if (target === undefined) return joined(chunks);
  checkWhole(key, at, target);
  return target;
}

/** Copies a chunk to its place, if it is not a view of it. */
function place(key: string, chunk: Uint8Array, target: Uint8Array, at: number): void {
  if (at + chunk.length > target.length) fail('corrupt-data', `'${key}' gave too many bytes`);
  const isThere = chunk.buffer === target.buffer && chunk.byteOffset === target.byteOffset + at;
  if (!isThere) target.set(chunk, at);
}

function checkWhole(key: string, gotBytes: number, { length }: Uint8Array): void {
  if (gotBytes === length) return;
  fail('corrupt-data', `'${key}' gave ${gotBytes} of ${length} B`, { key, gotBytes });
}

/**
 * Blobs as objects of S3 or of anything that speaks it: Ceph's RADOS Gateway, MinIO, R2.
 *
 * A body up to one part is a single PutObject; a larger one a multipart upload with parts in
 * parallel, which appears when it is completed. A put with a condition is always a single
 * PutObject, because gateways exist that ignore the condition of a completed multipart upload
 * (Ceph 16.2.15), and is therefore bounded. What conditions a service honours is found out when the
 * store is opened: create, create again, replace by the right and by a wrong ETag; and whether the
 * ETag must come without its quotes (Ceph 16.2.15 compares them), against RFC 9110.
 *
 * The version of a blob is its ETag. SDK and client are the caller's: `import * as sdk from
 * '@aws-sdk/client-s3'`, and a client with {@link s3ClientSettings} under this package's retry
 * layer. (The SDK's own retry repeats a conditional put without knowing whether the first was
 * applied.) Large blobs move faster with the HTTP client that the SDK's authors give for it, npm
 * `@smithy/undici-http-handler`, as `requestHandler` of the client.
 */
import { randomUUID } from 'node:crypto';
import {
  assertArgument,
  checkInteger,
  isVramError,
  throwIfAborted,
  VramError,
} from '@vramkit/core';
import { chunksOf, gather, inParts, knownSize } from '../blob-body.js';
import {
  checkInto,
  checkKey,
  checkPrefix,
  checkRange,
  isKey,
  memoryFor,
  rangeEnd,
} from '../blob-key.js';
import type {
  BlobBody,
  BlobInfo,
  BlobStore,
  CallOptions,
  GetOptions,
  ListOptions,
  PutOptions,
  StoreCapabilities,
} from '../blob-store.js';
import {
  checkCondition,
  conflictError,
  failNotFound,
  lostCondition,
  mayBeApplied,
} from '../store-error.js';
import { probeConditions, type S3Conditions } from './s3-probe.js';
import { bareTag, isStatus, S3Calls, type S3Client, type S3Sdk } from './s3-calls.js';

export type { S3Client, S3Sdk } from './s3-calls.js';

/** Options of {@link s3Store}. */
export interface S3StoreOptions {
  /** The module `@aws-sdk/client-s3`. */
  readonly sdk: S3Sdk;
  /** A client of that module, for the endpoint; its owner destroys it. */
  readonly client: S3Client;
  /** A bucket that exists. */
  readonly bucket: string;
  /** What every object's key begins with, such as 'models/'. Default: nothing. */
  readonly prefix?: string;
  /** Bytes of a part, at least 5 MiB. Default: 16 MiB. */
  readonly partBytes?: number;
  /** Parts in flight; memory is this times `partBytes`. Default: 4. */
  readonly parallelParts?: number;
  /** Largest body of a put with a condition, held in memory. Default: 64 MiB. */
  readonly maxConditionalBytes?: number;
  /**
   * Whether a put's signature covers its body, so that the service refuses one that was changed on
   * the way; SHA-256 on both sides takes a fifth of a put's time. Default: only where the
   * connection is not TLS. `false` suits a network of your own, or a `checksummedStore`.
   */
  readonly signBodies?: boolean | undefined;
}

/**
 * For `new S3Client({ ...s3ClientSettings, … })`. One try: the retry layer knows what may be
 * repeated. No checksums: a signed body has its SHA-256 ({@link S3StoreOptions.signBodies}), and a
 * checksummed store its own. No `Expect: 100-continue`, for which the SDK opens a new connection
 * per body of 2 MiB and more, and waits for an answer on it before it sends.
 */
export const s3ClientSettings = {
  maxAttempts: 1,
  requestChecksumCalculation: 'WHEN_REQUIRED',
  responseChecksumValidation: 'WHEN_REQUIRED',
  expectContinueHeader: false,
} as const;

const MAX_PARTS = 10_000;
const PAGE_KEYS = 1000;
/** A blob up to this is gathered before it is given out. */
const SMALL_BYTES = 2 ** 16;

/**
 * Opens a bucket as a store; puts and deletes one small object to find out what it honours.
 * @throws VramError `not-found` for a missing bucket, `access-denied`, `unavailable`.
 */
export async function s3Store(options: S3StoreOptions): Promise<BlobStore> {
  const { sdk, client, bucket, prefix = '', partBytes = 2 ** 24, parallelParts = 4 } = options;
  const { maxConditionalBytes = 2 ** 26, signBodies } = options;
  checkInteger('partBytes', partBytes, 5 * 2 ** 20, 5 * 2 ** 30);
  checkInteger('parallelParts', parallelParts, 1, 1000);
  checkInteger('maxConditionalBytes', maxConditionalBytes, 1, 5 * 2 ** 30);
  assertArgument(prefix === '' || prefix.endsWith('/'), "a prefix ends with '/'");
  const calls = new S3Calls(sdk, client, { bucket, prefix, signBodies });
  const probe = probeConditions(calls, `.vramkit-probe/${randomUUID()}`);
  const conditions = await probe.catch((error: unknown) => {
    throw calls.error('opening it', error);
  });
  return new S3Store(calls, conditions, { partBytes, parallelParts, maxConditionalBytes });
}

class S3Store implements BlobStore {
  readonly name: string;
  readonly capabilities: StoreCapabilities;
  readonly #calls: S3Calls;
  readonly #conditions: S3Conditions;
  readonly #partBytes: number;
  readonly #parallelParts: number;

  constructor(
    calls: S3Calls,
    conditions: S3Conditions,
    options: Required<Pick<S3StoreOptions, 'partBytes' | 'parallelParts' | 'maxConditionalBytes'>>,
  ) {
    this.name = calls.name;
    this.#calls = calls;
    this.#conditions = conditions;
    this.#partBytes = options.partBytes;
    this.#parallelParts = options.parallelParts;
    this.capabilities = {
      createIfAbsent: conditions.createIfAbsent,
      compareAndSwap: conditions.matchForm !== undefined,
      maxConditionalBytes: options.maxConditionalBytes,
      maxBlobBytes: options.partBytes * MAX_PARTS,
      preferredChunkBytes: options.partBytes,
      nestedKeys: true,
      durability: 'service',
      probed: ['createIfAbsent', 'compareAndSwap'],
    };
  }

  async put(key: string, body: BlobBody, options: PutOptions = {}): Promise<BlobInfo> {
    checkKey(key);
    throwIfAborted(options.signal);
    checkCondition(this, options.condition, knownSize(body, options));
    if (options.condition !== undefined) return this.#putConditional(key, body, options);
    const parts = inParts(chunksOf(body, options), this.#partBytes);
    try {
      const first = (await parts.next()).value ?? new Uint8Array(0);
      const second = (await parts.next()).value ?? undefined;
      if (second !== undefined) return await this.#putParts(key, [first, second], parts, options);
      const tag = await this.#calls.put(key, first, {}, options.signal).catch((error: unknown) => {
        throw this.#calls.error(`putting '${key}'`, error, options.signal);
      });
      return { key, sizeBytes: first.length, version: tag };
    } finally {
      await parts.return();
    }
  }

  async *get(key: string, options: GetOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const { offsetBytes = 0, lengthBytes, version, signal } = options;
    checkKey(key);
    checkRange(offsetBytes, lengthBytes);
    checkInto(options);
    throwIfAborted(signal);
    if (lengthBytes === 0) {
      yield* this.#noBytes(key, offsetBytes, version);
      return;
    }
    const last = lengthBytes === undefined ? '' : offsetBytes + lengthBytes - 1;
    const isWhole = offsetBytes === 0 && lengthBytes === undefined;
    const range = isWhole ? undefined : `bytes=${offsetBytes}-${last}`;
    const found = await this.#calls.get(key, range, version, signal).catch((error: unknown) => {
      if (isStatus(error, 404)) failNotFound(this.name, key);
      if (isStatus(error, 412)) {
        throw conflictError(this.name, key, lostCondition({ version: version ?? '' }));
      }
      if (isStatus(error, 416)) return undefined; // begins at or after the end
      throw this.#calls.error(`reading '${key}'`, error, signal);
    });
    if (found === undefined) {
      const info = (await this.head(key)) ?? failNotFound(this.name, key);
      const end = rangeEnd(key, info.sizeBytes, offsetBytes, lengthBytes);
      if (end === offsetBytes) return; // from the end: no bytes
      throw conflictError(this.name, key, 'was replaced by a larger one while it was read');
    }
    const wanted = lengthBytes ?? found.sizeBytes;
    let memory: Uint8Array | undefined;
    try {
      const isThere = wanted <= found.sizeBytes;
      assertArgument(isThere, `${wanted} B at ${offsetBytes} go over the end of '${key}'`, { key });
      memory = memoryFor(options, wanted);
    } catch (error) {
      found.body.destroy();
      throw error;
    }
    if (wanted <= SMALL_BYTES) memory ??= new Uint8Array(wanted);
    const doing = `reading '${key}'`;
    if (memory === undefined) yield* this.#calls.chunks(doing, found, wanted, signal);
    else {
      await this.#calls.fill(doing, found, memory, signal);
      if (memory.length > 0) yield memory;
    }
  }

  async head(key: string, { signal }: CallOptions = {}): Promise<BlobInfo | undefined> {
    checkKey(key);
    throwIfAborted(signal);
    try {
      return { key, ...(await this.#calls.head(key, signal)) };
    } catch (error) {
      if (isStatus(error, 404)) return undefined;
      throw this.#calls.error(`heading '${key}'`, error, signal);
    }
  }

  async *list(
    prefix: string,
    options: ListOptions = {},
  ): AsyncGenerator<BlobInfo, void, undefined> {
    const { startAfter, limit = Infinity, signal } = options;
    checkPrefix(prefix);
    let after = startAfter;
    for (let count = 0; count < limit;) {
      throwIfAborted(signal);
      const keys = Math.min(PAGE_KEYS, limit - count);
      const page = await this.#calls.list(prefix, after, keys, signal).catch((error: unknown) => {
        throw this.#calls.error(`listing '${prefix}'`, error, signal);
      });
      for (const info of page) {
        after = info.key;
        if (!isKey(info.key)) continue; // of this module, or an object of another program
        count += 1;
        yield info;
      }
      if (page.length === 0) return;
    }
  }

  async delete(key: string, { signal }: CallOptions = {}): Promise<void> {
    checkKey(key);
    throwIfAborted(signal);
    await this.#calls.delete(key, signal).catch((error: unknown) => {
      if (!isStatus(error, 404)) throw this.#calls.error(`deleting '${key}'`, error, signal);
    });
  }

  async #putConditional(key: string, body: BlobBody, options: PutOptions): Promise<BlobInfo> {
    const { condition, signal } = options;
    const bytes = await gather(this.#bounded(body, options));
    const quote = this.#conditions.matchForm === 'quoted' ? '"' : '';
    const headers =
      condition === 'absent'
        ? { IfNoneMatch: '*' }
        : { IfMatch: `${quote}${condition?.version ?? ''}${quote}` };
    try {
      const tag = await this.#calls.put(key, bytes, headers, signal);
      return { key, sizeBytes: bytes.length, version: tag };
    } catch (error) {
      // A missing object does not match; services say so by 412 or by 404.
      if (condition !== undefined && (isStatus(error, 412) || isStatus(error, 404))) {
        throw conflictError(this.name, key, lostCondition(condition));
      }
      throw this.#calls.error(`putting '${key}'`, error, signal);
    }
  }

  /** The chunks of a body, as long as a put with a condition can hold them. */
  async *#bounded(body: BlobBody, options: PutOptions) {
    let sizeBytes = 0;
    for await (const chunk of chunksOf(body, options)) {
      sizeBytes += chunk.length;
      checkCondition(this, options.condition, sizeBytes);
      yield chunk;
    }
  }

  async #putParts(
    key: string,
    first: readonly Uint8Array[],
    rest: AsyncGenerator<Uint8Array, void, undefined>,
    { signal }: PutOptions,
  ): Promise<BlobInfo> {
    // Without the signal: only who is told of an upload can end it.
    const upload = await this.#calls.beginUpload(key);
    const tags: string[] = [];
    let tag: string;
    let isCompleting = false;
    const inFlight = new Set<Promise<void>>();
    let failure: { readonly error: unknown } | undefined;
    let sizeBytes = 0;
    const send = async (bytes: Uint8Array): Promise<void> => {
      const index = sizeBytes / this.#partBytes;
      sizeBytes += bytes.length;
      const sent = this.#calls
        .putPart(key, upload, index + 1, bytes, signal)
        .then((tag) => void (tags[index] = tag))
        .catch((error: unknown) => void (failure ??= { error }))
        .finally(() => inFlight.delete(sent));
      inFlight.add(sent);
      // The SDK hashes a part on this thread: between two of them the first has a turn to be sent.
      await new Promise((resolve) => setImmediate(resolve));
      if (inFlight.size >= this.#parallelParts) await Promise.race(inFlight);
      if (failure !== undefined) throw failure.error;
    };
    try {
      for (const bytes of first) await send(bytes);
      for await (const bytes of rest) await send(bytes);
      await Promise.all(inFlight);
      if (failure !== undefined) throw (failure as { readonly error: unknown }).error; // set above
      throwIfAborted(signal);
      isCompleting = true;
      tag = await this.#calls.completeUpload(key, upload, tags, signal);
    } catch (error) {
      await Promise.all(inFlight);
      // Ceph 16.2 ends an upload also while it completes it: the object appears, and loses its
      // parts when garbage is collected.
      const isUnknown = mayBeApplied(error) || isVramError(error, 'aborted');
      if (!isCompleting || !isUnknown) {
        await this.#calls.abortUpload(key, upload).catch(() => undefined);
      }
      throw error;
    }
    return { key, sizeBytes, version: tag === '' ? await this.#versionOf(key) : tag };
  }

  /** Of an upload that is complete, which Ceph tells without its ETag; so no error is 'aborted'. */
  async #versionOf(key: string): Promise<string> {
    try {
      return (await this.#calls.head(key)).version;
    } catch (error) {
      const cause = this.#calls.error(`heading '${key}'`, error);
      throw new VramError('unavailable', `'${key}' was put, but its version was not told`, {
        context: { store: this.name, key },
        retryable: true,
        cause,
      });
    }
  }

  async *#noBytes(key: string, offsetBytes: number, version: string | undefined) {
    const info = (await this.head(key)) ?? failNotFound(this.name, key);
    if (version !== undefined && bareTag(version) !== info.version) {
      throw conflictError(this.name, key, lostCondition({ version }));
    }
    rangeEnd(key, info.sizeBytes, offsetBytes, 0);
  }
}

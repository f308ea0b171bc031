/**
 * The contract of blob stores: whole byte strings under names, over files, databases and services.
 *
 * Mental model: a map from key to bytes that outlives the process. A put publishes a whole blob at
 * once; there is no append and no partial overwrite. What differs between stores is data, in
 * {@link StoreCapabilities}, which an adapter declares, or finds out by asking the service when the
 * store is opened. The conformance suite (`@vramkit/storage/testing`) fails a declaration that the
 * real service does not show.
 *
 * Every store guarantees:
 *
 * - atomic replacement: a reader sees the bytes of one put, never a mixture, also after a crash;
 * - a put that resolved is seen by every later get, head and list, from any client;
 * - a put that rejected with anything but `timeout`, `unavailable` or `aborted` changed nothing; of
 *   one that was aborted nobody knows whether the signal came before it was published, unless the
 *   adapter says so;
 * - deleting a missing blob succeeds; heading one gives `undefined`; getting one is `not-found`;
 * - errors are `VramError`s: `conflict`, `not-found`, `storage-full`, `access-denied`, `timeout`,
 *   `unavailable`, `aborted`, `invalid-argument`, `corrupt-data`, `unsupported`; no secret in them.
 *
 * Rejected: an optional method per ability (callers would test for methods, not for guarantees);
 * emulating what a service lacks (a racy stand-in looks like the real thing until it fails).
 */

/**
 * Bytes of a put; no chunk may change until the put has settled. The retry layer sends a body again
 * only where it can be read from its start again. What one pass uses up is told by a method `next`,
 * `read` or `getReader`: a generator's result, a stream of Node or of the web. An iterable without
 * them gives all its bytes each time it is read; one that wraps a stream must have one of them.
 */
export type BlobBody = Uint8Array | AsyncIterable<Uint8Array>;

/** What a store knows of a blob without reading it. */
export interface BlobInfo {
  readonly key: string;
  readonly sizeBytes: number;
  /** Opaque; two puts of different bytes under one key never have the same one. */
  readonly version: string;
}

/** A put that may lose: the key must be absent, or still have a version that was read before. */
export type PutCondition = 'absent' | { readonly version: string };

/** Options of {@link BlobStore.put}. */
export interface PutOptions {
  /** Publish only where it holds, else reject with `conflict`. Default: always publish. */
  readonly condition?: PutCondition | undefined;
  /** Bytes of an iterable body; a body of another size is rejected. Default: not known. */
  readonly sizeBytes?: number | undefined;
  /**
   * Stops the put before it is published; one that is being published may go on, and replace what
   * others put meanwhile. Default: never.
   */
  readonly signal?: AbortSignal | undefined;
}

/** Options of {@link BlobStore.get}. */
export interface GetOptions {
  /** First byte. Default: 0. */
  readonly offsetBytes?: number | undefined;
  /** Bytes to read; the range must lie within the blob. Default: up to its end. */
  readonly lengthBytes?: number | undefined;
  /** Reject with `conflict` where the blob has another version. Default: any. */
  readonly version?: string | undefined;
  /**
   * Memory of exactly `lengthBytes` that a store may read into, and then gives views of, in order;
   * a store that cannot gives chunks of its own. A function gives memory of the size that it is
   * called with, once that is known, and again where a layer tries again. Whoever asks leaves the
   * memory alone until the get has ended. Default: new memory.
   */
  readonly into?: Uint8Array | ((sizeBytes: number) => Uint8Array) | undefined;
  /**
   * Each chunk is done with when the next is asked for: a store may use its memory again, which
   * large gets gain most from. For bytes that are hashed, sent or copied on. Default: false, chunks
   * to keep.
   */
  readonly lend?: boolean | undefined;
  /** Stops reading between chunks. Default: never. */
  readonly signal?: AbortSignal | undefined;
}

/** Options of {@link BlobStore.list}. */
export interface ListOptions {
  /** Leave out keys up to and including this one. Default: none. */
  readonly startAfter?: string | undefined;
  /** At most so many. Default: all. */
  readonly limit?: number | undefined;
  /** Stops listing between pages. Default: never. */
  readonly signal?: AbortSignal | undefined;
}

/** Options of the calls that have no other. */
export interface CallOptions {
  /** Stops the call before its next step. Default: never. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * What outlives what. `none`: nothing outlives the process. `synced`: a put that resolved is on the
 * disk of this machine. `service`: it is as durable as the service is set up to be.
 */
export type Durability = 'none' | 'synced' | 'service';

/** What a store can do beyond the guarantees of every store. */
export interface StoreCapabilities {
  /** Puts with the condition `absent`: of many writers at once exactly one wins. */
  readonly createIfAbsent: boolean;
  /** Puts with a version as condition: no update is lost. */
  readonly compareAndSwap: boolean;
  /** Largest body of a put with a condition. */
  readonly maxConditionalBytes: number;
  /** Largest blob. */
  readonly maxBlobBytes: number;
  /** A body or a range of about this size moves well; larger ones go in parts of it. */
  readonly preferredChunkBytes: number;
  /** Whether 'a' and 'a/b' can both be keys. Where they cannot, the second put is refused. */
  readonly nestedKeys: boolean;
  readonly durability: Durability;
  /** Which of these were found out by asking the service, not declared. */
  readonly probed: readonly (keyof StoreCapabilities)[];
}

/** A map from keys to blobs; the notes of this module say what every one guarantees. */
export interface BlobStore {
  /** For messages and traces: kind and place, without secrets. */
  readonly name: string;
  readonly capabilities: StoreCapabilities;

  /**
   * Publishes a whole blob at once, in place of the one that is there.
   * @throws VramError `conflict` where the condition does not hold, `unsupported` where the store
   * lacks it or cannot hold the body, `storage-full`, and what the module notes list.
   */
  put(key: string, body: BlobBody, options?: PutOptions): Promise<BlobInfo>;

  /**
   * The bytes of a blob or of a range of it, in order, in chunks that the caller owns, unless it
   * has them lent. Nothing happens before the first chunk is asked for; leaving the loop gives
   * everything back.
   * @throws VramError while iterating: `not-found`; `conflict` where the blob has another version,
   * or was replaced while it was read in several steps; `invalid-argument` for a range outside.
   */
  get(key: string, options?: GetOptions): AsyncIterable<Uint8Array>;

  /** Size and version, or `undefined` where there is no such blob. */
  head(key: string, options?: CallOptions): Promise<BlobInfo | undefined>;

  /**
   * Blobs whose keys begin with `prefix` (any string, also half a segment), in the order of their
   * keys' UTF-8 bytes. A blob put or deleted meanwhile may be listed or not.
   */
  list(prefix: string, options?: ListOptions): AsyncIterable<BlobInfo>;

  /** Removes a blob; a missing one is no error. */
  delete(key: string, options?: CallOptions): Promise<void>;
}

/** A store that holds something to give back: a connection, a file. */
export interface OwnedBlobStore extends BlobStore, AsyncDisposable {}

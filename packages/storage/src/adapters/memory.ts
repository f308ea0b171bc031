/**
 * Blobs in this process's memory: for tests, for a cache's near side, and as the naive model that
 * the suite compares other stores with.
 *
 * A map from key to bytes and a counter of puts, which with the store's random id is the version:
 * two stores have none in common. Bodies and chunks are copied, so neither side can change what the
 * other holds.
 */
import { randomUUID } from 'node:crypto';
import { checkInteger, fail, throwIfAborted } from '@vramkit/core';
import { checkKey, checkPrefix, checkRange, compareKeys, rangeEnd } from '../blob-key.js';
import { chunksOf, joined } from '../blob-body.js';
import type {
  BlobBody,
  BlobInfo,
  BlobStore,
  CallOptions,
  GetOptions,
  ListOptions,
  PutCondition,
  PutOptions,
  StoreCapabilities,
} from '../blob-store.js';
import { conflictError, failNotFound, lostCondition } from '../store-error.js';

/** Options of {@link memoryStore}. */
export interface MemoryStoreOptions {
  /** Most bytes of all blobs together; beyond it a put is `storage-full`. Default: no limit. */
  readonly limitBytes?: number;
}

interface Stored {
  readonly bytes: Uint8Array;
  readonly version: string;
}

const CHUNK_BYTES = 2 ** 20;

/** A store that ends with the process. Listing sorts all keys; the rest is constant time. */
export function memoryStore(options: MemoryStoreOptions = {}): BlobStore {
  const { limitBytes = Number.MAX_SAFE_INTEGER } = options;
  checkInteger('limitBytes', limitBytes);
  return new MemoryStore(limitBytes);
}

class MemoryStore implements BlobStore {
  readonly name = 'memory';
  readonly capabilities: StoreCapabilities;
  readonly #id = randomUUID();
  readonly #limitBytes: number;
  readonly #blobs = new Map<string, Stored>();
  #usedBytes = 0;
  #puts = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
    this.capabilities = {
      createIfAbsent: true,
      compareAndSwap: true,
      maxConditionalBytes: limitBytes,
      maxBlobBytes: limitBytes,
      preferredChunkBytes: CHUNK_BYTES,
      nestedKeys: true,
      durability: 'none',
      probed: [],
    };
  }

  async put(key: string, body: BlobBody, options: PutOptions = {}): Promise<BlobInfo> {
    checkKey(key);
    const copies: Uint8Array[] = [];
    let sizeBytes = 0;
    for await (const chunk of chunksOf(body, options)) {
      sizeBytes += chunk.length;
      // slice() of a Buffer would be a view.
      if (sizeBytes <= this.#limitBytes) copies.push(new Uint8Array(chunk));
    }
    const { condition } = options;
    if (condition !== undefined && !this.#holds(key, condition)) {
      throw conflictError(this.name, key, lostCondition(condition));
    }
    const neededBytes = this.#usedBytes - this.#sizeOf(key) + sizeBytes;
    if (neededBytes > this.#limitBytes) {
      fail('storage-full', `'${key}' makes ${neededBytes} B of at most ${this.#limitBytes} B`, {
        key,
        neededBytes,
        limitBytes: this.#limitBytes,
      });
    }
    this.#usedBytes = neededBytes;
    this.#puts += 1;
    const stored = { bytes: joined(copies), version: `${this.#puts}-${this.#id}` };
    this.#blobs.set(key, stored);
    return describe(key, stored);
  }

  async *get(key: string, options: GetOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const { offsetBytes = 0, lengthBytes, version, signal } = options;
    checkKey(key);
    checkRange(offsetBytes, lengthBytes);
    throwIfAborted(signal);
    const stored = this.#blobs.get(key) ?? failNotFound(this.name, key);
    if (version !== undefined && version !== stored.version) {
      throw conflictError(this.name, key, lostCondition({ version }));
    }
    const end = rangeEnd(key, stored.bytes.length, offsetBytes, lengthBytes);
    for (let at = offsetBytes; at < end; at += CHUNK_BYTES) {
      throwIfAborted(signal);
      yield stored.bytes.slice(at, Math.min(end, at + CHUNK_BYTES));
    }
  }

  async head(key: string, { signal }: CallOptions = {}): Promise<BlobInfo | undefined> {
    checkKey(key);
    throwIfAborted(signal);
    const stored = this.#blobs.get(key);
    return stored === undefined ? undefined : describe(key, stored);
  }

  async *list(
    prefix: string,
    options: ListOptions = {},
  ): AsyncGenerator<BlobInfo, void, undefined> {
    const { startAfter, limit = Infinity, signal } = options;
    checkPrefix(prefix);
    const found = [...this.#blobs]
      .filter(([key]) => key.startsWith(prefix))
      .filter(([key]) => startAfter === undefined || compareKeys(key, startAfter) > 0)
      .sort(([a], [b]) => compareKeys(a, b))
      .slice(0, limit);
    for (const [key, stored] of found) {
      throwIfAborted(signal);
      yield describe(key, stored);
    }
  }

  async delete(key: string, { signal }: CallOptions = {}): Promise<void> {
    checkKey(key);
    throwIfAborted(signal);
    this.#usedBytes -= this.#sizeOf(key);
    this.#blobs.delete(key);
  }

  #sizeOf(key: string): number {
    return this.#blobs.get(key)?.bytes.length ?? 0;
  }

  #holds(key: string, condition: PutCondition): boolean {
    const version = this.#blobs.get(key)?.version;
    return condition === 'absent' ? version === undefined : version === condition.version;
  }
}

function describe(key: string, { bytes, version }: Stored): BlobInfo {
  return { key, sizeBytes: bytes.length, version };
}

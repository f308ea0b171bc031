/** One run of one rule of the store suite: the store, and how to say what must hold. */
import { isVramError, type VramErrorCode } from '@vramkit/core';
import { seededRandom, type TestApi } from '@vramkit/core/testing';
import type { BlobInfo, BlobStore, GetOptions } from '../blob-store.js';

/** A store for one test, empty below `prefix`. */
export interface StoreUnderTest {
  readonly store: BlobStore;
  /** Another client of the same blobs, where there can be one. Default: `store`. */
  readonly other?: BlobStore;
  /** A client that is opened only now. A store whose durability is not 'none' must give one. */
  readonly reopen?: () => BlobStore | Promise<BlobStore>;
  /** What the suite's keys begin with; ends with `/`. Default: 't/'. */
  readonly prefix?: string;
  /** Runs after the test, whatever came of it. Default: nothing. */
  readonly close?: () => void | Promise<void>;
}

/** Registers one rule. */
export type StoreRule = (title: string, body: (test: StoreTest) => Promise<void>) => void;

/** Seeded bytes in which every value occurs where there is room. */
export function testBytes(sizeBytes: number, seed = 1): Uint8Array<ArrayBuffer> {
  const random = seededRandom(seed);
  const bytes = new Uint8Array(sizeBytes);
  const words = new Uint32Array(bytes.buffer, 0, sizeBytes >>> 2);
  for (let i = 0; i < words.length; i += 1) words[i] = random.uint32();
  for (let i = 0; i < Math.min(256, sizeBytes); i += 1) bytes[i] = (i + seed) & 255;
  return bytes;
}

/** Assertions about one store. */
export class StoreTest {
  readonly store: BlobStore;
  readonly other: BlobStore;
  readonly reopen: StoreUnderTest['reopen'];
  readonly #prefix: string;
  readonly #api: TestApi;

  constructor(api: TestApi, subject: StoreUnderTest) {
    const { store, other = store, reopen, prefix = 't/' } = subject;
    this.#api = api;
    this.store = store;
    this.other = other;
    this.reopen = reopen;
    this.#prefix = prefix;
  }

  /** A key of this test. */
  key(name: string): string {
    return this.#prefix + name;
  }

  /** Expects deep equality; `what` shows in the failure. */
  same(what: string, actual: unknown, expected: unknown): void {
    this.#api.expect({ [what]: actual }).toEqual({ [what]: expected });
  }

  /** Expects equal bytes; names the first that differs. */
  sameBytes(what: string, actual: Uint8Array, expected: Uint8Array): void {
    this.same(`size of ${what}`, actual.length, expected.length);
    if (Buffer.compare(actual, expected) === 0) return;
    const at = actual.findIndex((byte, index) => byte !== expected[index]);
    this.same(`byte ${at} of ${what}`, actual[at], expected[at]);
  }

  /** Expects `promise` to reject with a `VramError` of `code`, and returns it. */
  async rejects(code: VramErrorCode, promise: Promise<unknown>): Promise<Error | undefined> {
    try {
      await promise;
    } catch (error) {
      if (!isVramError(error)) throw error;
      this.same(`the code of "${error.message}"`, error.code, code);
      return error;
    }
    this.same(`a call that must reject with ${code}`, 'resolved', 'rejected');
    return undefined;
  }

  /** All bytes of a get. */
  async read(name: string, options: GetOptions = {}, store = this.store): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for await (const chunk of store.get(this.key(name), options)) parts.push(chunk);
    return new Uint8Array(Buffer.concat(parts));
  }

  /** Puts under a name of this test. */
  put(name: string, bytes: Uint8Array): Promise<BlobInfo> {
    return this.store.put(this.key(name), bytes);
  }

  /** Names below this test's prefix, in the order of a list. */
  async names(prefix = ''): Promise<string[]> {
    const names: string[] = [];
    for await (const { key } of this.store.list(this.key(prefix))) {
      names.push(key.slice(this.#prefix.length));
    }
    return names;
  }
}

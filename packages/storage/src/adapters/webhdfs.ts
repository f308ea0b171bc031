/**
 * Blobs as files of HDFS, over WebHDFS or HttpFS, with nothing but what Node has.
 *
 * A put creates a temporary file under `.vramkit-tmp`, then renames it: with the option OVERWRITE
 * in place of the old file, without it only where there is none. (CREATE with overwrite writes in
 * place: readers would see a half, and a crash would lose the old bytes.) A get reads from one open
 * file, so its bytes are of one put; a get of a range or of a version compares the file's id before
 * and after.
 *
 * Authentication is by user name or by delegation token; both travel in the address, so give an
 * `https:` URL on a network that is not your own. Kerberos (SPNEGO) is for whoever gets the token.
 */
import { randomUUID } from 'node:crypto';
import { assertArgument, fail, throwIfAborted } from '@vramkit/core';
import { chunksOf } from '../blob-body.js';
import { checkKey, checkPrefix, checkRange, rangeEnd } from '../blob-key.js';
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
import { checkCondition, conflictError, failNotFound, lostCondition } from '../store-error.js';
import { walkFiles } from './folder-walk.js';
import {
  HdfsRefusal,
  isMissing,
  isRefusal,
  WebHdfsCalls,
  type HdfsStatus,
  type WebHdfsUser,
} from './webhdfs-calls.js';

export type { WebHdfsUser } from './webhdfs-calls.js';

/** Options of {@link webHdfsStore}. */
export interface WebHdfsStoreOptions {
  /** Address of the NameNode's web server or of HttpFS, such as 'https://namenode:9871'. */
  readonly url: string;
  /** Folder of the blobs, absolute; made where it is missing. */
  readonly folder: string;
  /** Who asks. */
  readonly user: WebHdfsUser;
}

const TEMPORARY = '.vramkit-tmp';
const DAY_MS = 24 * 3600 * 1000;
// A concurrent delete may remove an empty folder before the rename; each try makes it anew.
const MAX_PUBLISH_TRIES = 16;
// Refusals of a move to where something is.
const TAKEN = ['FileAlreadyExistsException', 'IOException'];

/**
 * Opens a folder of HDFS as a store; removes temporary files that are more than a day old.
 * @throws VramError `access-denied`, `unavailable`.
 */
export async function webHdfsStore(options: WebHdfsStoreOptions): Promise<BlobStore> {
  const { url, folder, user } = options;
  assertArgument(folder.startsWith('/'), `folder '${folder}' is not absolute`);
  const calls = new WebHdfsCalls(new URL(url), folder, user);
  try {
    await calls.makeFolder(TEMPORARY);
    const now = await calls.now();
    for (const { pathSuffix, modificationTime } of await calls.entries(TEMPORARY)) {
      if (now - modificationTime > DAY_MS) await calls.remove(`${TEMPORARY}/${pathSuffix}`);
    }
  } catch (error) {
    throw calls.error('opening it', error);
  }
  return new HdfsStore(calls);
}

class HdfsStore implements BlobStore {
  readonly name: string;
  readonly capabilities: StoreCapabilities = {
    createIfAbsent: true,
    compareAndSwap: false,
    maxConditionalBytes: Number.MAX_SAFE_INTEGER,
    maxBlobBytes: Number.MAX_SAFE_INTEGER,
    preferredChunkBytes: 16 * 2 ** 20,
    nestedKeys: false,
    durability: 'service',
    probed: [],
  };
  readonly #calls: WebHdfsCalls;

  constructor(calls: WebHdfsCalls) {
    this.name = calls.name;
    this.#calls = calls;
  }

  async put(key: string, body: BlobBody, options: PutOptions = {}): Promise<BlobInfo> {
    const { condition, signal } = options;
    checkKey(key);
    throwIfAborted(signal);
    checkCondition(this, condition);
    const temporary = `${TEMPORARY}/${randomUUID()}`;
    const thrown: unknown[] = [];
    async function* chunks(): AsyncGenerator<Uint8Array, void, undefined> {
      try {
        yield* chunksOf(body, options);
      } catch (error) {
        thrown.push(error);
        throw error;
      }
    }
    try {
      await this.#calls.create(temporary, chunks(), signal);
      throwIfAborted(signal);
      const status = await this.#calls.status(temporary);
      if (status === undefined) fail('unavailable', `${this.name} lost a temporary file`);
      await this.#publish(temporary, key, condition === 'absent' ? 'NONE' : 'OVERWRITE');
      return describe(key, status);
    } catch (error) {
      await this.#calls.remove(temporary).catch(() => undefined);
      if (thrown.length > 0) throw thrown[0]; // what the body threw is the caller's own
      if (error instanceof HdfsRefusal) await this.#explain(key, condition, error);
      throw this.#calls.error(`putting '${key}'`, error, signal);
    }
  }

  async *get(key: string, options: GetOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const { offsetBytes = 0, lengthBytes, version, signal } = options;
    checkKey(key);
    checkRange(offsetBytes, lengthBytes);
    throwIfAborted(signal);
    const info = (await this.head(key, { signal })) ?? failNotFound(this.name, key);
    if (version !== undefined && version !== info.version) {
      throw conflictError(this.name, key, lostCondition({ version }));
    }
    const end = rangeEnd(key, info.sizeBytes, offsetBytes, lengthBytes);
    if (end === offsetBytes) return;
    const isRange = end < info.sizeBytes || offsetBytes > 0;
    const length = isRange ? end - offsetBytes : undefined;
    let got = 0;
    try {
      for await (const chunk of this.#calls.read(key, offsetBytes, length, signal)) {
        throwIfAborted(signal);
        got += chunk.length;
        yield chunk;
      }
    } catch (error) {
      if (isMissing(error) || isRefusal(error, 'IOException')) await this.#expect(info);
      throw this.#calls.error(`reading '${key}'`, error, signal);
    }
    const isShort = got !== end - offsetBytes;
    if (isShort || version !== undefined || isRange) await this.#expect(info);
    if (isShort) {
      const why = `${got} of ${end - offsetBytes} B came`;
      throw this.#calls.error(`reading '${key}': ${why}`, undefined, signal);
    }
  }

  async head(key: string, { signal }: CallOptions = {}): Promise<BlobInfo | undefined> {
    checkKey(key);
    throwIfAborted(signal);
    try {
      const status = await this.#calls.status(key, signal);
      return status?.type === 'FILE' ? describe(key, status) : undefined;
    } catch (error) {
      throw this.#calls.error(`heading '${key}'`, error, signal);
    }
  }

  async *list(
    prefix: string,
    options: ListOptions = {},
  ): AsyncGenerator<BlobInfo, void, undefined> {
    const { startAfter, limit = Infinity, signal } = options;
    checkPrefix(prefix);
    const entriesOf = async (folderKey: string) => {
      const found = await this.#calls
        .entries(folderKey.replace(/\/$/, ''), signal)
        .catch((error: unknown) => {
          throw this.#calls.error(`listing '${prefix}'`, error, signal);
        });
      return found.map((status) => ({
        name: this.#calls.unescape(status.pathSuffix),
        isFolder: status.type === 'DIRECTORY',
        status,
      }));
    };
    let count = 0;
    if (limit === 0) return;
    for await (const [key, { status }] of walkFiles(entriesOf, prefix, startAfter)) {
      throwIfAborted(signal);
      yield describe(key, status);
      if (++count >= limit) return;
    }
  }

  async delete(key: string, { signal }: CallOptions = {}): Promise<void> {
    checkKey(key);
    throwIfAborted(signal);
    try {
      if ((await this.#calls.status(key, signal))?.type !== 'FILE') return;
      await this.#calls.remove(key, signal);
      await this.#removeEmptyParents(key);
    } catch (error) {
      if (isMissing(error) || isRefusal(error, 'PathIsNotEmptyDirectoryException', 'Refused'))
        return;
      throw this.#calls.error(`deleting '${key}'`, error, signal);
    }
  }

  /** What a refused put means, by what is under its name now. */
  async #explain(
    key: string,
    condition: PutOptions['condition'],
    refusal: HdfsRefusal,
  ): Promise<void> {
    // A server that was lost meanwhile cannot be asked; the refusal stays what it is.
    const there = await this.#calls.status(key).catch(() => undefined);
    const isBelowFile = isRefusal(refusal, 'ParentNotDirectoryException');
    const isTaken = isRefusal(refusal, 'FileAlreadyExistsException');
    assertArgument(
      there?.type !== 'DIRECTORY' && !isBelowFile && (!isTaken || condition === 'absent'),
      `'${key}' and another key of ${this.name} are file and folder of one name`,
      { key },
    );
    if (isTaken) throw conflictError(this.name, key, lostCondition('absent'));
  }

  async #publish(from: string, to: string, option: 'NONE' | 'OVERWRITE'): Promise<void> {
    const folder = to.slice(0, Math.max(0, to.lastIndexOf('/')));
    for (let tries = 1; ; tries += 1) {
      try {
        await this.#calls.rename(from, to, option);
        return;
      } catch (error) {
        const isParentMissing = isRefusal(error, 'FileNotFoundException', 'Refused');
        // A put of a key below, or a delete, that was cut off leaves folders without a file.
        const isFree = isRefusal(error, ...TAKEN) && (await this.#removeEmptyFolders(to));
        if ((!isParentMissing && !isFree) || tries >= MAX_PUBLISH_TRIES) throw error;
        if (isParentMissing) await this.#calls.makeFolder(folder);
      }
    }
  }

  /** Removes a folder that has no file below it; whether it is gone. */
  async #removeEmptyFolders(key: string): Promise<boolean> {
    for (const { pathSuffix, type } of await this.#calls.entries(key)) {
      const below = `${key}/${this.#calls.unescape(pathSuffix)}`;
      if (type === 'FILE' || !(await this.#removeEmptyFolders(below))) return false;
    }
    return this.#calls.removeFolder(key);
  }

  /** Folders are a part of keys, not things of their own: those that hold nothing go. */
  async #removeEmptyParents(key: string): Promise<void> {
    const segments = key.split('/');
    while (segments.pop() !== undefined && segments.length > 0) {
      if (!(await this.#calls.removeFolder(segments.join('/')))) return;
    }
  }

  /** @throws VramError `conflict` where the file is no longer the one that was described. */
  async #expect({ key, version }: BlobInfo): Promise<void> {
    const now = await this.head(key);
    if (now?.version === version) return;
    throw conflictError(this.name, key, 'was replaced or deleted while it was read');
  }
}

function describe(key: string, { length, fileId, modificationTime }: HdfsStatus): BlobInfo {
  return { key, sizeBytes: length, version: `${fileId}-${modificationTime}-${length}` };
}

/**
 * Blobs as files below one folder, on any POSIX file system: a local disk, NFS, CephFS, Lustre.
 *
 * Mental model: the key is the path. A put writes a temporary file under `.vramkit-tmp`, syncs it,
 * moves it to its place by one `rename` (or, for the condition `absent`, by one `link`, which fails
 * where the name is taken), and syncs the folder; so a crash at any point leaves the old bytes or
 * the new. Other tools read the files as they are. A signal that fires before the move leaves the
 * old bytes; a put that is within its move by then (of a slow server, say) goes on.
 *
 * No key leaves the root: keys have no `..` and no empty segment, the folder of a key must be its
 * own real path (no symbolic link on the way), and files are opened without following a link. Who
 * may write into the root from outside can still race these checks.
 *
 * Versions are inode, size and time of change, so they also see changes by other programs. A
 * compare-and-swap would need a lock that Node does not offer on files; it is declared absent.
 *
 * Sources: POSIX.1-2017 rename() and link(); the order of write, fsync, rename, fsync of the folder
 * is that of Pillai and others, "All File Systems Are Not Created Equal" (2014).
 */
import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { link, lstat, mkdir, realpath, rename, statfs, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { assertArgument, checkInteger, fail, isVramError, throwIfAborted } from '@vramkit/core';
import { chunksOf } from '../blob-body.js';
import { checkInto, checkKey, checkPrefix, checkRange, memoryFor, rangeEnd } from '../blob-key.js';
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
import { chunkPool, newChunk } from '../chunk-pool.js';
import { framedGet, type FramedChunk, type FramedReads, type Frames } from '../framed-reads.js';
import { inOrder } from '../parallel.js';
import {
  checkCondition,
  codeOf,
  conflictError,
  failNotFound,
  lostCondition,
  systemError,
} from '../store-error.js';
import { walkFiles } from './folder-walk.js';
import { applyLayout, type LustreLayout } from './lustre-layout.js';
import { DirectFiles } from './posix-direct.js';
import {
  describe,
  entriesOf,
  isInside,
  makeFolders,
  prepareTemporary,
  removeEmptyFolders,
  removeEmptyParents,
  syncFolder,
  writeSynced,
} from './posix-files.js';
import { LEAST_READ_BYTES, PageCache, partBytes, OpenFile } from './open-file.js';

/** Options of {@link posixStore}. */
export interface PosixStoreOptions {
  /** Folder of the blobs; made where it is missing. */
  readonly folder: string;
  /** Bytes per read, in [4 KiB, 64 MiB]. Default: 2 MiB; whole frames under `checksummedStore`. */
  readonly chunkBytes?: number;
  /**
   * Temporary files older than this, left by writers that were killed, are removed when the store
   * is opened; the file system's own clock counts. Default: 24 hours.
   */
  readonly staleAfterMs?: number;
  /** Layout of new files on Lustre, refused elsewhere. Default: what the site has set. */
  readonly layout?: LustreLayout;
  /**
   * Reads and writes past the page cache (O_DIRECT): for large blobs that are read once. Refused
   * where the file system has none. Default: false.
   */
  readonly direct?: boolean;
}

/** A {@link BlobStore} over files, and what it found out about the file system. */
export interface PosixStore extends BlobStore {
  /** Real path of the folder. */
  readonly folder: string;
  /** Number of the file system's kind, as `statfs` gives it; `LUSTRE_TYPE` is Lustre. */
  readonly fileSystemType: number;
  /** What new files get on Lustre, read back from it; `undefined` where no layout was asked for. */
  readonly layout: LustreLayout | undefined;
}

const TEMPORARY = '.vramkit-tmp';
const DAY_MS = 24 * 3600 * 1000;
// Chunks of a get that are read or given out and not yet done with.
const READS = 4;
// A concurrent delete may remove an empty folder between mkdir and rename; each try makes it anew.
const MAX_PUBLISH_TRIES = 16;
// Codes of a move to where a folder is.
const FOLDER_CODES = ['EISDIR', 'EEXIST', 'ENOTEMPTY'];
// No link is followed, and a pipe without a writer is not waited for; both absent on Windows.
const READ_ONLY = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);

/**
 * Opens a folder as a store.
 * @throws VramError `access-denied`, `storage-full` or `unavailable` where it cannot be written;
 * `invalid-argument` for an option that is none.
 */
export async function posixStore(options: PosixStoreOptions): Promise<PosixStore> {
  const { folder, chunkBytes = 2 * 2 ** 20, staleAfterMs = DAY_MS } = options;
  assertArgument(typeof folder === 'string', 'options.folder is a path');
  checkInteger('chunkBytes', chunkBytes, 4096, 64 * 2 ** 20);
  const name = `posix ${folder}`;
  try {
    await mkdir(join(folder, TEMPORARY), { recursive: true });
    const root = await realpath(folder);
    const hasLinks = await prepareTemporary(join(root, TEMPORARY), staleAfterMs);
    const { type } = await statfs(root);
    const layout = await applyLayout(name, type, join(root, TEMPORARY), options.layout);
    const temporary = join(root, TEMPORARY);
    const direct =
      options.direct === true ? await DirectFiles.open(temporary, chunkBytes) : undefined;
    return new FileStore(name, root, { chunkBytes, type, hasLinks, layout, direct });
  } catch (error) {
    throw isVramError(error) ? error : systemError(name, 'opening it', error);
  }
}

/** What was found out when a store was opened. */
interface Found {
  readonly chunkBytes: number;
  readonly type: number;
  readonly hasLinks: boolean;
  readonly layout: LustreLayout | undefined;
  readonly direct: DirectFiles | undefined;
}

class FileStore implements PosixStore, FramedReads {
  readonly capabilities: StoreCapabilities;
  readonly fileSystemType: number;
  readonly layout: LustreLayout | undefined;
  readonly #direct: DirectFiles | undefined;
  readonly #cache: PageCache | undefined;

  constructor(
    readonly name: string,
    readonly folder: string,
    { chunkBytes, type, hasLinks, layout, direct }: Found,
  ) {
    this.fileSystemType = type;
    this.layout = layout;
    this.#direct = direct;
    this.#cache = direct === undefined ? PageCache.of(type) : undefined;
    this.capabilities = {
      createIfAbsent: hasLinks,
      compareAndSwap: false,
      maxConditionalBytes: Number.MAX_SAFE_INTEGER,
      maxBlobBytes: Number.MAX_SAFE_INTEGER,
      preferredChunkBytes: chunkBytes,
      nestedKeys: false,
      durability: 'synced',
      probed: ['createIfAbsent'],
    };
  }

  async put(key: string, body: BlobBody, options: PutOptions = {}): Promise<BlobInfo> {
    const { condition } = options;
    const path = this.#path(checkKey(key));
    throwIfAborted(options.signal);
    checkCondition(this, condition);
    const temporary = join(this.folder, TEMPORARY, randomUUID());
    let isMoved = false;
    try {
      const chunks = chunksOf(body, options);
      const info = await (this.#direct?.writeSynced(temporary, key, chunks) ??
        writeSynced(temporary, key, chunks, this.#cache));
      const isNew = condition === 'absent';
      await this.#publish(temporary, path, (from, to) => {
        throwIfAborted(options.signal);
        return isNew ? link(from, to) : rename(from, to);
      });
      isMoved = !isNew;
      return info;
    } catch (error) {
      const taken = error instanceof Error && 'syscall' in error && error.syscall === 'link';
      if (taken && codeOf(error) === 'EEXIST')
        throw conflictError(this.name, key, lostCondition('absent'));
      throw this.#putError(key, error);
    } finally {
      if (!isMoved) await unlink(temporary).catch(() => undefined);
    }
  }

  get(key: string, options: GetOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const chunks = this.#chunks(key, options);
    return chunks as AsyncGenerator<Uint8Array, void, undefined>; // without frames
  }

  [framedGet](key: string, options: GetOptions, frames: Frames) {
    return this.#direct === undefined ? this.#chunks(key, options, frames) : undefined;
  }

  async *#chunks(
    key: string,
    options: GetOptions,
    frames?: Frames,
  ): AsyncGenerator<FramedChunk, void, undefined> {
    const { offsetBytes = 0, lengthBytes, version, signal } = options;
    checkRange(offsetBytes, lengthBytes);
    checkInto(options);
    throwIfAborted(signal);
    const { file, info } = (await this.#open(checkKey(key))) ?? failNotFound(this.name, key);
    try {
      if (version !== undefined && version !== info.version) {
        throw conflictError(this.name, key, lostCondition({ version }));
      }
      const end = rangeEnd(key, info.sizeBytes, offsetBytes, lengthBytes);
      const into = memoryFor(options, end - offsetBytes);
      const lend = options.lend === true && into === undefined;
      const isNear = file.isNear;
      const { preferredChunkBytes } = this.capabilities;
      const least = isNear ? preferredChunkBytes : LEAST_READ_BYTES;
      const part = partBytes(end - offsetBytes, least, preferredChunkBytes);
      const { strideBytes = 1 } = frames ?? {};
      const step = Math.max(1, Math.round(part / strideBytes)) * strideBytes;
      frames?.begin(info.sizeBytes);
      const starts = function* () {
        for (let at = offsetBytes; at < end; at += step) yield at;
      };
      const read = (from: number): Promise<FramedChunk> => {
        const to = Math.min(end, from + step);
        const memory = (): FramedChunk =>
          frames?.memoryOf(from, to) ??
          into?.subarray(from - offsetBytes, to - offsetBytes) ??
          newChunk(to - from, lend);
        return this.#read(key, file, from, to, memory);
      };
      let at = offsetBytes;
      // Reads run on threads of their own while the consumer works; so does the close.
      for await (const chunk of inOrder(starts(), isNear ? 1 : READS, read)) {
        throwIfAborted(signal);
        at += step;
        if (at >= end) file.close().catch(() => undefined); // awaited below
        yield chunk;
        if (lend && chunk instanceof Uint8Array) chunkPool.give(chunk);
      }
    } finally {
      await file.close();
    }
  }

  async head(key: string, { signal }: CallOptions = {}): Promise<BlobInfo | undefined> {
    checkKey(key);
    throwIfAborted(signal);
    const path = this.#path(key);
    try {
      if (!(await this.#isInside(path))) return undefined;
      const stat = await lstat(path, { bigint: true });
      return stat.isFile() ? describe(key, stat) : undefined;
    } catch (error) {
      if (['ENOENT', 'ENOTDIR'].includes(codeOf(error))) return undefined;
      throw systemError(this.name, `looking for '${key}'`, error);
    }
  }

  async *list(
    prefix: string,
    options: ListOptions = {},
  ): AsyncGenerator<BlobInfo, void, undefined> {
    const { startAfter, limit = Infinity, signal } = options;
    checkPrefix(prefix);
    let count = 0;
    try {
      const entries = (key: string) => entriesOf(join(this.folder, key));
      for await (const [key] of walkFiles(entries, prefix, startAfter)) {
        throwIfAborted(signal);
        if (count >= limit) return;
        const info = await this.head(key);
        if (info === undefined) continue;
        count += 1;
        yield info;
      }
    } catch (error) {
      throw isVramError(error) ? error : systemError(this.name, `listing '${prefix}'`, error);
    }
  }

  async delete(key: string, { signal }: CallOptions = {}): Promise<void> {
    const path = this.#path(checkKey(key));
    throwIfAborted(signal);
    try {
      if (!(await this.#isInside(path)) || !(await lstat(path)).isFile()) return;
      await unlink(path);
      await syncFolder(dirname(path), this.#cache);
      await removeEmptyParents(this.folder, path);
    } catch (error) {
      if (['ENOENT', 'ENOTDIR'].includes(codeOf(error))) return;
      throw systemError(this.name, `deleting '${key}'`, error);
    }
  }

  #path(key: string): string {
    return join(this.folder, ...key.split('/'));
  }

  #isInside(path: string): Promise<boolean> {
    return isInside(this.folder, path, this.#cache);
  }

  /** Opens a blob's file; `undefined` where there is none. */
  async #open(key: string): Promise<{ file: OpenFile; info: BlobInfo } | undefined> {
    const path = this.#path(key);
    let file: OpenFile | undefined;
    try {
      if (!(await this.#isInside(path))) return undefined;
      const flags = READ_ONLY | (this.#direct?.flags ?? 0);
      file = await OpenFile.open(path, flags, this.#cache);
      const stat = await file.stat();
      if (stat.isFile()) return { file, info: describe(key, stat) };
      await file.close();
      return undefined;
    } catch (error) {
      await file?.close().catch(() => undefined);
      const code = codeOf(error);
      if (['ENOENT', 'ENOTDIR', 'ELOOP', 'EISDIR', 'EMLINK'].includes(code)) return undefined;
      // A folder that is opened past the page cache.
      const isFolder = code === 'EINVAL' && (await lstat(path)).isDirectory();
      if (isFolder) return undefined;
      throw systemError(this.name, `opening '${key}'`, error);
    }
  }

  /** Bytes `[from, to)` of a file, in `memory` where the page cache is not passed by. */
  async #read(
    key: string,
    file: OpenFile,
    from: number,
    to: number,
    memory: () => FramedChunk,
  ): Promise<FramedChunk> {
    try {
      const direct =
        this.#direct === undefined ? undefined : await this.#direct.read(file, from, to);
      const chunk = direct ?? memory();
      const pieces = chunk instanceof Uint8Array ? [chunk] : chunk;
      const end = from + (direct?.length ?? (await file.readRange(from, pieces)));
      if (end === to) return chunk;
      return fail('corrupt-data', `'${key}' of ${this.name} ended at ${end} B, before ${to} B`, {
        key,
        offsetBytes: end,
      });
    } catch (error) {
      throw isVramError(error) ? error : systemError(this.name, `reading '${key}'`, error);
    }
  }

  /** Moves a synced file to its place and makes the move durable. */
  async #publish(
    temporary: string,
    path: string,
    move: (from: string, to: string) => Promise<void>,
  ): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      try {
        if (!(await this.#isInside(path))) {
          fail('access-denied', `a symbolic link lies on the way to ${path}`, { path });
        }
        // Most folders are there already.
        if (tries > 1) await makeFolders(dirname(path), this.#cache);
        await move(temporary, path);
        break;
      } catch (error) {
        const code = codeOf(error);
        // A put of a key below, or a delete, that was killed leaves folders without a file.
        const isFree = FOLDER_CODES.includes(code) && (await removeEmptyFolders(path));
        if ((isFree || code === 'ENOENT') && tries < MAX_PUBLISH_TRIES) continue;
        // What was made for it.
        if (tries > 1) await removeEmptyParents(this.folder, path).catch(() => undefined);
        throw error;
      }
    }
    await syncFolder(dirname(path), this.#cache).catch((error: unknown) => {
      // The folder went, or is a file now: the blob was deleted meanwhile.
      if (!['ENOENT', 'ENOTDIR'].includes(codeOf(error))) throw error;
    });
  }

  #putError(key: string, error: unknown): unknown {
    const code = codeOf(error);
    assertArgument(
      code !== 'ENOTDIR' && !FOLDER_CODES.includes(code),
      `'${key}' and another key of ${this.name} are file and folder of one name`,
      { key },
    );
    // What a body threw is the caller's own; only errors of the file system are translated.
    const isSystem = error instanceof Error && 'syscall' in error;
    return isSystem ? systemError(this.name, `putting '${key}'`, error) : error;
  }
}

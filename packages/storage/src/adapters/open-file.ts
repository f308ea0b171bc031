/**
 * A file that is read or written by its descriptor: the calls of `FileHandle` take about twice the
 * time, which is felt where a blob is small.
 *
 * Each call runs on a thread of libuv's pool and comes back, 30 to 100 us on the machines measured.
 * What a file system has in memory comes sooner on this thread: the state of an open file, the last
 * close of a small one, and names and small reads too (see {@link PageCache}). A file system that
 * may have to ask a server would hold up everything else; there, and for the last close of a large
 * file that was deleted meanwhile, all calls go to the threads.
 */
import {
  close,
  closeSync,
  fstat,
  fstatSync,
  fsync,
  open,
  openSync,
  read,
  readv,
  readvSync,
  realpath,
  realpathSync,
  writev,
} from 'node:fs';
import type { BigIntStats } from 'node:fs';
import { promisify } from 'node:util';
import { splitPieces } from '../blob-body.js';

const calls = {
  realpath: promisify(realpath.native),
  open: promisify(open),
  read: promisify(read),
  readAll: promisify(readv),
  write: promisify(writev),
  sync: promisify(fsync),
  // promisify takes the last of several signatures.
  stat: promisify(fstat) as (fd: number, options: { bigint: true }) => Promise<BigIntStats>,
  close: promisify(close),
};

/**
 * Types, as `statfs` gives them on Linux: ext4, XFS, Btrfs, tmpfs, overlayfs, F2FS. Not ZFS, whose
 * reads Linux does not count for the process.
 */
const LOCAL_TYPES: readonly number[] = [
  0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0xf2f5_2010,
];

const SMALL_BYTES = 2n ** 21n;
// What takes longer than both together did not come from memory.
const WARM_MS = 0.05;
const WARM_BYTES_PER_MS = 2 ** 20;
const PAUSE = 20;
const TURN_MS = 4;

/**
 * The memory in which a local file system keeps names and pages, and a guess whether the next call
 * finds all that it needs there.
 *
 * Node cannot ask, so each call is timed. After a slow one, if the process has read from a disk
 * since the slow one before, the next are left to the threads for twenty times as long. So a disk
 * holds this thread up for 5 % of the time at most, and a pause of another kind changes nothing.
 *
 * Who awaits what came at once gives nobody else a turn; so there is one when calls have followed
 * each other for 4 ms.
 */
export class PageCache {
  #coldUntilMs = 0;
  /** When the first call of this turn of the event loop began. */
  #turnBeganMs: number | undefined;
  #diskReads = process.resourceUsage().fsRead;

  /** `undefined` where a file system of that type may have to ask a server. */
  static of(type: number): PageCache | undefined {
    const isLocal = process.platform === 'linux' && LOCAL_TYPES.includes(type);
    return isLocal ? new PageCache() : undefined;
  }

  get seemsWarm(): boolean {
    return performance.now() >= this.#coldUntilMs;
  }

  /** Does a call on this thread that moves so many bytes. */
  timed<Result>(sizeBytes: number, call: () => Result): Result {
    const begin = performance.now();
    if (this.#turnBeganMs === undefined) {
      this.#turnBeganMs = begin;
      setImmediate(() => (this.#turnBeganMs = undefined));
    }
    try {
      return call();
    } finally {
      const now = performance.now();
      const isSlow = now - begin > WARM_MS + sizeBytes / WARM_BYTES_PER_MS;
      if (isSlow && this.#hasReadDisk()) this.#coldUntilMs = now + PAUSE * (now - begin);
    }
  }

  /** The next turn of the event loop where this one has taken long. */
  turn(): Promise<void> | undefined {
    const isLong = performance.now() - (this.#turnBeganMs ?? Infinity) > TURN_MS;
    return isLong ? new Promise((resolve) => setImmediate(resolve)) : undefined;
  }

  #hasReadDisk(): boolean {
    const before = this.#diskReads;
    this.#diskReads = process.resourceUsage().fsRead;
    return this.#diskReads !== before;
  }
}

/** The path without symbolic links. */
export function realPath(path: string, cache?: PageCache): string | Promise<string> {
  if (cache?.seemsWarm !== true) return calls.realpath(path);
  return cache.timed(0, () => realpathSync.native(path));
}

/** An open file; whoever opened it closes it. */
export class OpenFile {
  readonly #fd: number;
  readonly #cache: PageCache | undefined;
  #isSmall = false;
  #isSynced = false;
  #closing: Promise<void> | undefined;

  private constructor(fd: number, cache: PageCache | undefined) {
    this.#fd = fd;
    this.#cache = cache;
  }

  /**
   * @param flags Of open(2).
   * @param cache Of the file system, where it has one of its own.
   */
  static async open(path: string, flags: number, cache?: PageCache): Promise<OpenFile> {
    await cache?.turn();
    const fd = cache?.seemsWarm
      ? cache.timed(0, () => openSync(path, flags))
      : await calls.open(path, flags);
    return new OpenFile(fd, cache);
  }

  async stat(): Promise<BigIntStats> {
    if (this.#cache === undefined) return calls.stat(this.#fd, { bigint: true });
    const stat = fstatSync(this.#fd, { bigint: true });
    this.#isSmall = stat.size <= SMALL_BYTES;
    return stat;
  }

  /** Appends chunks by one call; gives how many bytes of them were written. */
  async write(chunks: readonly Uint8Array[]): Promise<number> {
    this.#isSynced = false;
    return (await calls.write(this.#fd, chunks)).bytesWritten;
  }

  /** Makes what was written durable. */
  async sync(): Promise<void> {
    await calls.sync(this.#fd);
    this.#isSynced = this.#cache !== undefined;
  }

  /** Whether ranges are read on this thread for now: one read at a time, as large as it may be. */
  get isNear(): boolean {
    return this.#isSmall && this.#cache?.seemsWarm === true;
  }

  /** Bytes from `position` on into `target`, by a thread; gives how many, 0 only at the end. */
  async read(target: Uint8Array, position: number): Promise<number> {
    return (await calls.read(this.#fd, target, 0, target.length, position)).bytesRead;
  }

  /** Fills `pieces`, one after the other, with the bytes from `from` on; gives how many came. */
  async readRange(from: number, pieces: readonly Uint8Array[]): Promise<number> {
    let filled = 0;
    for (let rest = pieces; rest.length > 0;) {
      const bytesRead = await this.#readSome(rest, from + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
      [, rest] = splitPieces(rest, bytesRead);
    }
    return filled;
  }

  #readSome(pieces: readonly Uint8Array[], position: number): number | Promise<number> {
    if (!this.isNear || this.#cache === undefined) return this.#readAll(pieces, position);
    const sizeBytes = pieces.reduce((sum, { length }) => sum + length, 0);
    return this.#cache.timed(sizeBytes, () => readvSync(this.#fd, pieces, position));
  }

  async #readAll(pieces: readonly Uint8Array[], position: number): Promise<number> {
    return (await calls.readAll(this.#fd, pieces, position)).bytesRead;
  }

  /** Once; a second call waits for the first. No read may be under way. */
  close(): Promise<void> {
    const hasLittleToDo = this.#isSmall || this.#isSynced;
    this.#closing ??= hasLittleToDo ? closeAtOnce(this.#fd) : calls.close(this.#fd);
    return this.#closing;
  }
}

async function closeAtOnce(fd: number): Promise<void> {
  closeSync(fd);
}

const PAGE_BYTES = 4096;

/** No read on a thread is smaller but the last: another one would cost more than it saves. */
export const LEAST_READ_BYTES = 2 ** 18;

/**
 * Bytes of the parts in which a range is read. A range below three of the largest comes in three
 * reads, so that the consumer has work during the last ones.
 */
export function partBytes(rangeBytes: number, least: number, most: number): number {
  const third = Math.ceil(rangeBytes / 3 / PAGE_BYTES) * PAGE_BYTES;
  return Math.min(most, Math.max(least, third));
}

/**
 * A file that is read by its descriptor: the calls of `FileHandle` take about twice the time, which
 * is felt where a blob is small.
 *
 * Each call runs on a thread of libuv's pool and comes back, 30 us on the machines measured. So the
 * state of an open file is asked for without one where the file system keeps it in memory, and a
 * small file is closed without one there; a file system that may have to ask a server would hold up
 * everything else, and so would the last close of a large file that was deleted meanwhile.
 */
import { close, closeSync, fstat, fstatSync, open, read, type BigIntStats } from 'node:fs';
import { promisify } from 'node:util';

const calls = {
  open: promisify(open),
  read: promisify(read),
  // promisify takes the last of several signatures.
  stat: promisify(fstat) as (fd: number, options: { bigint: true }) => Promise<BigIntStats>,
  close: promisify(close),
};

/** Types, as `statfs` gives them on Linux: ext4, XFS, Btrfs, tmpfs, overlayfs, F2FS, ZFS. */
const LOCAL_TYPES: readonly number[] = [
  0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0xf2f5_2010, 0x2fc1_2fc1,
];

const SMALL_BYTES = 2n ** 21n;

/** An open file; whoever opened it closes it. */
export class ReadFile {
  readonly #fd: number;
  #closesAtOnce = false;
  #closing: Promise<void> | undefined;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** @param flags Of open(2). */
  static async open(path: string, flags: number): Promise<ReadFile> {
    return new ReadFile(await calls.open(path, flags));
  }

  /** @param type Of the file system. */
  async stat(type: number): Promise<BigIntStats> {
    const isLocal = process.platform === 'linux' && LOCAL_TYPES.includes(type);
    if (!isLocal) return calls.stat(this.#fd, { bigint: true });
    const stat = fstatSync(this.#fd, { bigint: true });
    this.#closesAtOnce = stat.size <= SMALL_BYTES;
    return stat;
  }

  /** Bytes from `position` on into `target`; gives how many, 0 only at the end. */
  async read(target: Uint8Array, position: number): Promise<number> {
    return (await calls.read(this.#fd, target, 0, target.length, position)).bytesRead;
  }

  /** Bytes `[from, to)`, or fewer where the file ends before, in new memory where none is given. */
  async readRange(from: number, to: number, into?: Uint8Array): Promise<Uint8Array> {
    const chunk = into ?? new Uint8Array(Buffer.allocUnsafeSlow(to - from).buffer);
    let filled = 0;
    while (filled < chunk.length) {
      const bytesRead = await this.read(chunk.subarray(filled), from + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return chunk.subarray(0, filled);
  }

  /** Once; a second call waits for the first. No read may be under way. */
  close(): Promise<void> {
    this.#closing ??= this.#closesAtOnce ? closeAtOnce(this.#fd) : calls.close(this.#fd);
    return this.#closing;
  }
}

async function closeAtOnce(fd: number): Promise<void> {
  closeSync(fd);
}

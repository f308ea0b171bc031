/**
 * A {@link ByteSink} over a file of the local disk, for Node, Deno and Bun: what is not finished is
 * never seen under the file's name.
 *
 * Bytes go to `<path>.part`; `commit` flushes them and renames the file, which a file system does
 * completely or not at all. A part that a crash left behind can be opened again.
 */
import { VramError } from '@vramkit/core';
import type * as FileSystem from 'node:fs/promises';

/** Somewhere to write bytes at positions, that appears all at once. */
export interface ByteSink {
  /** Name for error messages. */
  readonly name: string;
  /** Writes all of `bytes` at `offset`. */
  write(offset: number, bytes: Uint8Array): Promise<void>;
  /** Makes everything durable and gives it its name. */
  commit(): Promise<void>;
  /** Gives up the handle; what was not committed stays a part. Idempotent. */
  close(): Promise<void>;
}

function fileSystem(): typeof FileSystem {
  const found = globalThis.process?.getBuiltinModule?.('node:fs/promises');
  if (found === undefined) throw new VramError('unsupported', 'this runtime has no file system');
  return found;
}

/** Options of {@link fileSink}. */
export interface FileSinkOptions {
  /** Whether a part that is there is kept, to be continued. Default: false. */
  readonly resume?: boolean;
}

/**
 * Opens `<path>.part` for writing; the caller closes it.
 * @throws VramError `not-found` where the folder does not exist or cannot be written to.
 */
export async function fileSink(path: string, options: FileSinkOptions = {}): Promise<ByteSink> {
  const { open, rename } = fileSystem();
  const part = `${path}.part`;
  const context = { file: path };
  let handle: FileSystem.FileHandle;
  try {
    handle = await open(part, options.resume === true ? 'r+' : 'w').catch((error: unknown) => {
      if (options.resume !== true) throw error;
      return open(part, 'w');
    });
  } catch (cause) {
    throw new VramError('not-found', `cannot write ${part}`, { cause, context });
  }
  let closed = false;
  const close = async (): Promise<void> => {
    if (closed) return;
    closed = true;
    await handle.close();
  };
  return {
    name: path,
    write: async (offset, bytes) => {
      if (closed) throw new VramError('disposed', `${path} is closed`, { context });
      for (let done = 0; done < bytes.byteLength;) {
        const left = bytes.subarray(done);
        done += (await handle.write(left, 0, left.byteLength, offset + done)).bytesWritten;
      }
    },
    commit: async () => {
      await handle.sync();
      await close();
      await rename(part, path);
    },
    close,
  };
}

/** A sink in memory, for small files and tests; `bytes` gives a copy of what was written. */
export function memorySink(name: string): ByteSink & {
  /** What was written so far. */
  bytes(): Uint8Array<ArrayBuffer>;
} {
  let buffer = new Uint8Array(0);
  let end = 0;
  return {
    name,
    write: async (offset, bytes) => {
      end = Math.max(end, offset + bytes.byteLength);
      if (end > buffer.byteLength) {
        const grown = new Uint8Array(2 * end);
        grown.set(buffer);
        buffer = grown;
      }
      buffer.set(bytes, offset);
    },
    commit: async () => undefined,
    close: async () => undefined,
    bytes: () => buffer.slice(0, end),
  };
}

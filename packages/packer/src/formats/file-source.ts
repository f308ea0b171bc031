/**
 * A {@link ByteSource} over a file of the local disk, for Node, Deno and Bun.
 *
 * The file system module is taken from the running process by name at call time, so that a bundle
 * for a browser that never calls `fileSource` needs no shim for it.
 */
import { checkInteger, throwIfAborted, VramError } from '@vramkit/core';
import type * as FileSystem from 'node:fs/promises';
import { checkRange, type ByteSource } from './byte-source.js';
import { failCorrupt } from './format-error.js';

/** One system call moves at most this much; below the 2 GiB that the kernel allows. */
const MAX_READ_BYTES = 1 << 30;

function fileSystem(): typeof FileSystem {
  const found = globalThis.process?.getBuiltinModule?.('node:fs/promises');
  if (found === undefined) {
    throw new VramError('unsupported', 'this runtime has no file system; use blobSource');
  }
  return found;
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

/**
 * Opens the file at `path` for positional reads; the caller closes it.
 * @throws VramError `not-found` where there is no such file, `unsupported` where it is not a
 * regular file or the runtime has no file system.
 */
export async function fileSource(path: string): Promise<ByteSource> {
  const { open } = fileSystem();
  let handle: FileSystem.FileHandle;
  try {
    handle = await open(path, 'r');
  } catch (cause) {
    const code =
      hasCode(cause, 'ENOENT') || hasCode(cause, 'ENOTDIR') ? 'not-found' : 'unsupported';
    throw new VramError(code, `cannot open ${path}`, { cause, context: { file: path } });
  }
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) {
      throw new VramError('unsupported', `${path} is not a regular file`, {
        context: { file: path },
      });
    }
    return handleSource(path, handle, checkInteger('sizeBytes', stat.size));
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function handleSource(name: string, handle: FileSystem.FileHandle, sizeBytes: number): ByteSource {
  let closed = false;
  return {
    name,
    sizeBytes,
    read: async (offset, length, signal) => {
      if (closed) throw new VramError('disposed', `${name} is closed`, { context: { file: name } });
      checkRange({ name, sizeBytes }, offset, length);
      const bytes = new Uint8Array(length);
      for (let done = 0; done < length;) {
        throwIfAborted(signal);
        const wanted = Math.min(MAX_READ_BYTES, length - done);
        const { bytesRead } = await handle.read(bytes, done, wanted, offset + done);
        if (bytesRead === 0) {
          failCorrupt(name, `ends at ${offset + done} B, ${sizeBytes} B when it was opened`, {
            offset: offset + done,
            sizeBytes,
          });
        }
        done += bytesRead;
      }
      throwIfAborted(signal);
      return bytes;
    },
    close: async () => {
      if (closed) return;
      closed = true;
      await handle.close();
    },
  };
}

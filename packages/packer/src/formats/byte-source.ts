/**
 * Positional reads over something that has a size: the one way the readers of this folder get
 * bytes.
 *
 * Mental model: a file opened for reading. A reader asks for the ranges it needs and never for
 * the whole, so files larger than memory, or than one `ArrayBuffer`, work. Anything that can
 * answer "bytes [offset, offset + length)" is a source: a file (`fileSource`), a `Blob`, an HTTP
 * range request, a storage object.
 *
 * Invariants: `read` gives exactly `length` bytes or rejects; a range outside the source is
 * refused before memory for it is allocated.
 */
import { throwIfAborted, VramError } from '@vramkit/core';
import { failCorrupt } from './format-error.js';

/** A named, sized sequence of bytes that can be read at any position. */
export interface ByteSource {
  /** Name for error messages, such as the file's path. */
  readonly name: string;
  /** Size of the whole source, in bytes. */
  readonly sizeBytes: number;
  /**
   * Reads exactly `length` bytes at `offset` into memory that the caller owns.
   * @throws VramError `corrupt-data` where the range is not inside the source, `aborted` by
   * `signal`, `disposed` after `close`.
   */
  read(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array>;
  /** Gives the underlying handle back. Idempotent. */
  close(): Promise<void>;
}

/**
 * Refuses a range that is not inside `source`; implementations call it first in `read`.
 * @throws VramError `corrupt-data` with the range and the size.
 */
export function checkRange(
  source: Pick<ByteSource, 'name' | 'sizeBytes'>,
  offset: number,
  length: number,
): void {
  const valid = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
  if (valid && offset >= 0 && length >= 0 && offset + length <= source.sizeBytes) return;
  failCorrupt(source.name, `bytes [${offset}, +${length}) are outside of ${source.sizeBytes} B`, {
    offset,
    length,
    sizeBytes: source.sizeBytes,
  });
}

/** A source over bytes in memory. `read` copies, so that a caller cannot change the original. */
export function bytesSource(name: string, bytes: Uint8Array): ByteSource {
  return {
    name,
    sizeBytes: bytes.byteLength,
    read: async (offset, length, signal) => {
      throwIfAborted(signal);
      checkRange({ name, sizeBytes: bytes.byteLength }, offset, length);
      return new Uint8Array(bytes.subarray(offset, offset + length));
    },
    close: async () => undefined,
  };
}

/**
 * A source over a `Blob` or a browser `File`; the bytes stay where the platform keeps them.
 *
 * @example
 * ```ts
 * import { blobSource, readGguf } from '@vramkit/packer';
 * async function load(input: HTMLInputElement) {
 *   const file = input.files?.[0];
 *   return file === undefined ? undefined : readGguf(blobSource(file.name, file));
 * }
 * ```
 */
export function blobSource(name: string, blob: Blob): ByteSource {
  return {
    name,
    sizeBytes: blob.size,
    read: async (offset, length, signal) => {
      throwIfAborted(signal);
      checkRange({ name, sizeBytes: blob.size }, offset, length);
      const buffer = await readBlob(name, blob.slice(offset, offset + length));
      throwIfAborted(signal);
      if (buffer.byteLength !== length) {
        failCorrupt(name, `${buffer.byteLength} B instead of ${length} B at ${offset}`, {
          offset,
          length,
        });
      }
      return new Uint8Array(buffer);
    },
    close: async () => undefined,
  };
}

async function readBlob(name: string, blob: Blob): Promise<ArrayBuffer> {
  try {
    return await blob.arrayBuffer();
  } catch (cause) {
    // A browser revokes access to a file that changed on disk after it was chosen.
    throw new VramError('corrupt-data', `${name}: the file can no longer be read`, {
      cause,
      context: { file: name },
    });
  }
}

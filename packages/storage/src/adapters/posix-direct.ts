/**
 * Files past the page cache (O_DIRECT), for bytes that are read once and must not push others out.
 *
 * The kernel wants offset, length and address in memory to be multiples of a block. Node gives no
 * addresses, so the aligned part of a buffer is found by trying: reads of one block into it succeed
 * where it is aligned. The tail of a file is written as a whole block and cut off by `truncate`.
 *
 * Sources: open(2) on O_DIRECT. Buffers are kept, so a steady flow allocates only what it hands to
 * the caller.
 */
import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { open, unlink, writeFile, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { fail } from '@vramkit/core';
import type { BlobInfo } from '../blob-store.js';
import { inParts } from '../blob-body.js';
import { codeOf } from '../store-error.js';
import { describe } from './posix-files.js';
import type { OpenFile } from './open-file.js';

const BLOCK_BYTES = 4096;
/** Memory of Node is aligned to this at least. */
const STEP_BYTES = 16;
const MAX_KEPT = 4;

const { O_DIRECT } = constants;

/** Reads and writes of whole blocks, through kept buffers. */
export class DirectFiles {
  readonly #bufferBytes: number;
  readonly #folder: string;
  readonly #kept: Uint8Array[] = [];
  /** Where in the last buffer the aligned part began: most begin there again. */
  #lastOffset = BLOCK_BYTES - STEP_BYTES;

  private constructor(folder: string, chunkBytes: number) {
    this.#folder = folder;
    this.#bufferBytes = Math.ceil(chunkBytes / BLOCK_BYTES) * BLOCK_BYTES + 2 * BLOCK_BYTES;
  }

  /**
   * Finds out whether the file system has it.
   * @param folder For files that are made and removed while a buffer is aligned.
   * @throws VramError `unsupported` where it has not.
   */
  static async open(folder: string, chunkBytes: number): Promise<DirectFiles> {
    const files = new DirectFiles(folder, chunkBytes);
    files.#kept.push(await files.#align());
    return files;
  }

  /** Flags that a file is opened with to be read here. */
  readonly flags = O_DIRECT;

  /** Writes a new file and syncs it. */
  async writeSynced(
    path: string,
    key: string,
    chunks: AsyncIterable<Uint8Array>,
  ): Promise<BlobInfo> {
    const { O_WRONLY, O_CREAT, O_EXCL } = constants;
    const file = await open(path, O_WRONLY | O_CREAT | O_EXCL | O_DIRECT, 0o666);
    const buffer = await this.#take();
    try {
      let sizeBytes = 0;
      for await (const part of inParts(chunks, this.#bufferBytes)) {
        buffer.set(part);
        const blocks = Math.ceil(part.length / BLOCK_BYTES) * BLOCK_BYTES;
        buffer.fill(0, part.length, blocks);
        for (let at = 0; at < blocks;) {
          at += (await file.write(buffer, at, blocks - at, sizeBytes + at)).bytesWritten;
        }
        sizeBytes += part.length;
      }
      await file.truncate(sizeBytes);
      await file.sync();
      return describe(key, await file.stat({ bigint: true }));
    } finally {
      this.#give(buffer);
      await file.close();
    }
  }

  /** Bytes `[from, to)` of a file, or fewer where it ends before; in an array of the caller's. */
  async read(file: OpenFile, from: number, to: number): Promise<Uint8Array> {
    const begin = Math.floor(from / BLOCK_BYTES) * BLOCK_BYTES;
    const blocks = Math.ceil((to - begin) / BLOCK_BYTES) * BLOCK_BYTES;
    const buffer = await this.#take();
    try {
      let filled = 0;
      while (filled < to - begin) {
        const bytesRead = await file.read(buffer.subarray(filled, blocks), begin + filled);
        filled += bytesRead;
        // A read that stops within a block has met the end.
        if (bytesRead === 0 || bytesRead % BLOCK_BYTES !== 0) break;
      }
      return buffer.slice(from - begin, Math.min(filled, to - begin));
    } finally {
      this.#give(buffer);
    }
  }

  async #take(): Promise<Uint8Array> {
    return this.#kept.pop() ?? this.#align();
  }

  #give(buffer: Uint8Array): void {
    if (this.#kept.length < MAX_KEPT) this.#kept.push(buffer);
  }

  /** A buffer whose address is a multiple of a block. */
  async #align(): Promise<Uint8Array> {
    const memory = new Uint8Array(this.#bufferBytes + BLOCK_BYTES);
    const path = join(this.#folder, randomUUID());
    let file: FileHandle | undefined;
    try {
      await writeFile(path, new Uint8Array(BLOCK_BYTES), { flag: 'wx' });
      file = await open(path, constants.O_RDONLY | O_DIRECT);
      for (let tried = 0; tried < BLOCK_BYTES; tried += STEP_BYTES) {
        const offset = (this.#lastOffset + tried) % BLOCK_BYTES;
        if (!(await isAligned(file, memory, offset))) continue;
        this.#lastOffset = offset;
        return memory.subarray(offset, offset + this.#bufferBytes);
      }
    } catch (error) {
      if (codeOf(error) !== 'EINVAL') throw error;
    } finally {
      await file?.close();
      await unlink(path).catch(() => undefined);
    }
    return fail('unsupported', 'the file system has no O_DIRECT that takes a buffer of Node');
  }
}

async function isAligned(file: FileHandle, memory: Uint8Array, offset: number): Promise<boolean> {
  try {
    return (await file.read(memory, offset, BLOCK_BYTES, 0)).bytesRead === BLOCK_BYTES;
  } catch (error) {
    if (codeOf(error) === 'EINVAL') return false;
    throw error;
  }
}

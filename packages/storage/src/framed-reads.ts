/**
 * How `checksummedStore` reads from a store that can give chunks of whole frames: nothing is held
 * back then, so chunks can be lent, and no frame is hashed in pieces.
 *
 * A method under a symbol, because layers between would forward an option: one that changes the
 * length of a blob must not have its frames counted below it.
 */
import type { BlobStore, GetOptions } from './blob-store.js';

/** Name of the method. */
export const framedGet = Symbol('framedGet');

/** What a blob consists of. */
export interface Frames {
  /** Bytes of a frame; the last one of a blob may be shorter. */
  readonly strideBytes: number;
  /** Told by a store that gives whole frames, before it reads the first: the bytes of the blob. */
  begin(storedBytes: number): void;
  /**
   * Memory for the stored bytes `[from, to)`, which are whole frames: their contents and hashes in
   * turn. `undefined` where the store is to use its own.
   */
  memoryOf(from: number, to: number): readonly Uint8Array[] | undefined;
}

/** A chunk of whole frames, or the memory of {@link Frames.memoryOf} with them. */
export type FramedChunk = Uint8Array | readonly Uint8Array[];

/** A store with the method. */
export interface FramedReads {
  /** As {@link BlobStore.get}, from the start of a frame to the end of one; or not at all. */
  [framedGet](
    key: string,
    options: GetOptions,
    frames: Frames,
  ): AsyncIterable<FramedChunk> | undefined;
}

/** Chunks of whole frames where the store gives them, which it may lend; else any, to keep. */
export function getFramed(
  store: BlobStore & Partial<FramedReads>,
  key: string,
  options: GetOptions,
  frames: Frames,
): AsyncIterable<FramedChunk> {
  return store[framedGet]?.(key, options, frames) ?? store.get(key, { ...options, lend: false });
}

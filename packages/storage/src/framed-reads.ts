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
  /** Bytes of the blob, told by a store that gives whole frames before it gives the first. */
  storedBytes: number | undefined;
}

/** A store with the method. */
export interface FramedReads {
  /** As {@link BlobStore.get}, from the start of a frame to the end of one; or not at all. */
  [framedGet](
    key: string,
    options: GetOptions,
    frames: Frames,
  ): AsyncIterable<Uint8Array> | undefined;
}

/** Chunks of whole frames where the store gives them, which it may lend; else any, to keep. */
export function getFramed(
  store: BlobStore & Partial<FramedReads>,
  key: string,
  options: GetOptions,
  frames: Frames,
): AsyncIterable<Uint8Array> {
  return store[framedGet]?.(key, options, frames) ?? store.get(key, { ...options, lend: false });
}

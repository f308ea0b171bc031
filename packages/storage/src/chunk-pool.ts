/**
 * Memory of chunks that were let go, kept for the next ones.
 *
 * New memory is dear where much of it is needed: the system gives it page by page as it is written
 * first, and takes it back when the collector has found it to be garbage. A large get into new
 * memory can spend more time so than on reading.
 */

/** Smaller memory is not kept: the allocator has it at hand. */
const LEAST_BYTES = 2 ** 17;

/** Free memory up to a bound; what is more is left to the garbage collector. */
export class ChunkPool {
  readonly #maxBytes: number;
  readonly #free: ArrayBufferLike[] = [];
  #freeBytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Memory of `sizeBytes`, with any content: the last given back that is large enough. */
  take(sizeBytes: number): Uint8Array {
    const index = this.#free.findLastIndex(({ byteLength }) => byteLength >= sizeBytes);
    const [free] = index < 0 || sizeBytes < LEAST_BYTES ? [] : this.#free.splice(index, 1);
    this.#freeBytes -= free?.byteLength ?? 0;
    return new Uint8Array(free ?? Buffer.allocUnsafeSlow(sizeBytes).buffer, 0, sizeBytes);
  }

  /** Takes the memory of a chunk back, all of it; nobody else may hold it. */
  give({ buffer }: Uint8Array): void {
    if (buffer.byteLength < LEAST_BYTES || buffer.byteLength > this.#maxBytes) return;
    this.#free.push(buffer);
    this.#freeBytes += buffer.byteLength;
    while (this.#freeBytes > this.#maxBytes) {
      this.#freeBytes -= this.#free.shift()?.byteLength ?? 0;
    }
  }
}

/** The one of this process. */
export const chunkPool = new ChunkPool(32 * 2 ** 20);

/** Just below the most that glibc adapts to. */
const ADAPT_BYTES = 2 ** 25 - 2 ** 16;
const adapted = { isDone: false };

/**
 * Has glibc keep up to 64 MiB of freed memory. By default it gives freed chunks back to the system
 * and takes them anew, page by page; but it adapts to the largest memory mapped by it alone that
 * was ever freed (mallopt(3), M_MMAP_THRESHOLD). So such a memory is made and dropped, unwritten,
 * so it takes none. Other allocators are not changed by it.
 */
function adaptAllocator(): void {
  if (adapted.isDone) return;
  adapted.isDone = true;
  void new ArrayBuffer(ADAPT_BYTES);
}

/** Memory for a chunk, with any content: from the pool where it will be given back. */
export function newChunk(sizeBytes: number, isLent: boolean): Uint8Array {
  if (isLent) return chunkPool.take(sizeBytes);
  if (sizeBytes >= LEAST_BYTES) adaptAllocator();
  return new Uint8Array(Buffer.allocUnsafeSlow(sizeBytes).buffer);
}

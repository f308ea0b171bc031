/**
 * Finds every changed, missing, added or moved byte when it is read, also in a range.
 *
 * Layout: the blob in frames of 256 KiB of data, the last one shorter, each followed by 8 bytes:
 *
 *     | data 0 .. 256 KiB | check | data | check | ... | last data | check |
 *
 * A check (little endian) is the XXH3 of the data, XOR the frame's place: twice its index, plus 1
 * for the last frame, times an odd number modulo 2^64, which differs for any two places. So a frame
 * that was cut off, repeated or moved does not fit its place, and a blob that was cut between two
 * frames has no last one. An empty blob is one frame. The size of the data follows from the
 * size of the blob, so head and list read nothing more; a range reads the frames around it, in one
 * get. Whoever reads the blob without this layer sees the frames. Where no frames have
 * the size of a blob, head and get say `corrupt-data`; a list gives the data of its whole frames as
 * its size and goes on, so that the blob can be found and deleted.
 *
 * XXH3 finds faults, not attacks: where bytes must withstand somebody who can write to the store,
 * keep a SHA-256 elsewhere, as checkpoints do. Source of place and last frame: the STREAM
 * construction of Hoang, Reyhanitabar, Rogaway, Vizár (2015), used here without encryption.
 */
import { assertInvariant, fail } from '@vramkit/core';
import { bodyOf, chunksOf, inParts, splitPieces } from '../blob-body.js';
import { checkInto, checkKey, checkRange, memoryFor, rangeEnd } from '../blob-key.js';
import type { BlobBody, BlobInfo, BlobStore, GetOptions } from '../blob-store.js';
import { failNotFound } from '../store-error.js';
import { getFramed, type FramedChunk, type Frames } from '../framed-reads.js';
import { openXxh3, type Xxh3 } from '../xxh3.js';
import { wrapStore } from './wrap.js';

/** Bytes of data in a frame; a part of the format. */
export const FRAME_BYTES = 2 ** 18;

const HASH_BYTES = 8;
const STRIDE = FRAME_BYTES + HASH_BYTES;

/** A store whose blobs carry their checksums; `upstream` stays the caller's. */
export function checksummedStore(upstream: BlobStore): BlobStore {
  const { capabilities } = upstream;
  const trySizeOf = (storedBytes: number): number | undefined => {
    const frames = Math.max(1, Math.ceil(storedBytes / STRIDE));
    const sizeBytes = storedBytes - frames * HASH_BYTES;
    const isCut = sizeBytes < 0 || (frames > 1 && sizeBytes <= (frames - 1) * FRAME_BYTES);
    return isCut ? undefined : sizeBytes;
  };
  const sizeOf = (key: string, storedBytes: number): number =>
    trySizeOf(storedBytes) ??
    corrupt(key, `a blob of ${storedBytes} B has no whole frame at its end`);
  const describe = (info: BlobInfo): BlobInfo => ({
    ...info,
    sizeBytes: sizeOf(info.key, info.sizeBytes),
  });
  const dataOf = (storedBytes: number): number =>
    Math.max(0, storedBytes - HASH_BYTES * Math.ceil(storedBytes / STRIDE + 1));

  return wrapStore(upstream, {
    name: `checksummed ${upstream.name}`,
    capabilities: {
      ...capabilities,
      maxBlobBytes: dataOf(capabilities.maxBlobBytes),
      maxConditionalBytes: dataOf(capabilities.maxConditionalBytes),
    },
    async put(key, body, options = {}) {
      checkKey(key);
      const { sizeBytes } = body instanceof Uint8Array ? { sizeBytes: body.length } : options;
      const xxh3 = await openXxh3();
      const framed = bodyOf(body, () => inFrames(body, sizeBytes, xxh3));
      const storedBytes =
        sizeBytes === undefined ? undefined : sizeBytes + HASH_BYTES * frameCount(sizeBytes);
      const info = await upstream.put(key, framed, { ...options, sizeBytes: storedBytes });
      return describe(info);
    },
    get: (key, options = {}) => {
      const { offsetBytes = 0, lengthBytes } = options;
      const isWhole = offsetBytes === 0 && lengthBytes === undefined;
      // Handed on as it is: a generator around it would cost a turn of the queue per frame.
      if (isWhole) return checkedBlob(upstream, key, options, (bytes) => sizeOf(key, bytes));
      return checkedRange(upstream, key, options, (storedBytes) => sizeOf(key, storedBytes));
    },
    async head(key, options) {
      const info = await upstream.head(key, options);
      return info === undefined ? undefined : describe(info);
    },
    async *list(prefix, options) {
      for await (const info of upstream.list(prefix, options)) {
        const whole = Math.floor(info.sizeBytes / STRIDE) * FRAME_BYTES;
        yield { ...info, sizeBytes: trySizeOf(info.sizeBytes) ?? whole };
      }
    },
  });
}

function frameCount(sizeBytes: number): number {
  return Math.max(1, Math.ceil(sizeBytes / FRAME_BYTES));
}

const PLACES = 0x9e37_79b9_7f4a_7c15n;

function placeOf(index: number, isLast: boolean): bigint {
  return BigInt.asUintN(64, PLACES * BigInt(2 * index + (isLast ? 1 : 0)));
}

function corrupt(key: string, why: string, offsetBytes?: number): never {
  fail('corrupt-data', `'${key}': ${why}`, { key, offsetBytes });
}

/** Pairs each item with whether it is the last one. */
async function* withLast<Item>(
  items: AsyncIterable<Item>,
): AsyncGenerator<readonly [Item, boolean], void, undefined> {
  let held: readonly [Item] | undefined;
  for await (const item of items) {
    if (held !== undefined) yield [held[0], false];
    held = [item];
  }
  if (held !== undefined) yield [held[0], true];
}

/** The body in frames, each followed by its hash. */
async function* inFrames(
  body: BlobBody,
  sizeBytes: number | undefined,
  xxh3: Xxh3,
): AsyncGenerator<Uint8Array, void, undefined> {
  let index = 0;
  for await (const [data, isLast] of withLast(
    inParts(chunksOf(body, { sizeBytes }), FRAME_BYTES),
  )) {
    yield data;
    yield checkBytes(xxh3.hash([data]) ^ placeOf(index, isLast));
    index += 1;
  }
  if (index === 0) yield checkBytes(xxh3.hash([]) ^ placeOf(0, true));
}

/** What a {@link FrameReader} is told of the bytes that it gets. */
interface FrameRange {
  readonly firstIndex: number;
  /** Whether they go up to the end of the blob. */
  readonly isWhole: boolean;
  /** First byte of the caller's memory. */
  readonly offsetBytes: number;
  /** The caller's memory, asked for once the stored bytes of the blob are known. */
  readonly memoryOf: (storedBytes: number) => Uint8Array | undefined;
}

/**
 * Frames out of chunks of any size, without a copy: a frame that goes over the end of its chunk is
 * kept, hashed and given out in pieces.
 */
class FrameReader implements Frames {
  readonly strideBytes = STRIDE;
  readonly #key: string;
  readonly #xxh3: Xxh3;
  readonly #range: FrameRange;
  #index: number;
  #storedBytes: number | undefined;
  #memory: Uint8Array | undefined;
  /** The last frame so far: whether it is the blob's last shows when more comes, or nothing. */
  #pieces: Uint8Array[] = [];
  #heldBytes = 0;
  #hasEnded = false;

  constructor(key: string, xxh3: Xxh3, range: FrameRange) {
    this.#key = key;
    this.#xxh3 = xxh3;
    this.#range = range;
    this.#index = range.firstIndex;
  }

  begin(storedBytes: number): void {
    this.#storedBytes = storedBytes;
    this.#memory = this.#range.memoryOf(storedBytes);
  }

  memoryOf(from: number, to: number): readonly Uint8Array[] | undefined {
    const memory = this.#memory;
    if (memory === undefined) return undefined;
    const hashes = new Uint8Array(HASH_BYTES * Math.ceil((to - from) / STRIDE));
    const pieces: Uint8Array[] = [];
    for (let at = from, index = 0; at < to; at += STRIDE, index += 1) {
      const length = Math.min(STRIDE, to - at) - HASH_BYTES;
      const begin = (at / STRIDE) * FRAME_BYTES - this.#range.offsetBytes;
      // Of a frame at the edge of a range the caller wants a part only.
      const isInside = begin >= 0 && begin + length <= memory.length;
      pieces.push(isInside ? memory.subarray(begin, begin + length) : new Uint8Array(length));
      pieces.push(hashes.subarray(HASH_BYTES * index, HASH_BYTES * (index + 1)));
    }
    return pieces;
  }

  /** The data of frames that are known to have ended. */
  push(chunk: FramedChunk): Uint8Array[] {
    return chunk instanceof Uint8Array ? this.#pushBytes(chunk) : this.#pushFrames(chunk);
  }

  /** Whole frames in memory of {@link memoryOf}. */
  #pushFrames(pieces: readonly Uint8Array[]): Uint8Array[] {
    const frames: Uint8Array[] = [];
    for (let i = 0; i < pieces.length; i += 2) {
      const [frame, hash] = pieces.slice(i, i + 2);
      assertInvariant(frame !== undefined && hash !== undefined, 'a frame has a hash');
      const end = this.#index * STRIDE + frame.length + HASH_BYTES;
      this.#check([frame], hashIn(hash), end === this.#storedBytes);
      if (frame.length > 0) frames.push(frame);
    }
    return frames;
  }

  #pushBytes(chunk: Uint8Array): Uint8Array[] {
    const data: Uint8Array[] = [];
    const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.length);
    const storedBytes = this.#storedBytes;
    for (let at = 0; at < chunk.length;) {
      if (this.#heldBytes === STRIDE) data.push(...this.#checked(false));
      const piece = chunk.subarray(at, at + STRIDE - this.#heldBytes);
      at += piece.length;
      const isLast = this.#index * STRIDE + piece.length === storedBytes;
      const isKnown = storedBytes !== undefined || at < chunk.length;
      const isFrame = isLast ? piece.length >= HASH_BYTES : piece.length === STRIDE;
      if (isKnown && isFrame) {
        const frame = piece.subarray(0, -HASH_BYTES);
        this.#check([frame], view.getBigUint64(at - HASH_BYTES, true), isLast);
        if (frame.length > 0) data.push(frame);
      } else {
        this.#pieces.push(piece);
        this.#heldBytes += piece.length;
      }
    }
    return data;
  }

  /** The data of the last frame. */
  end(): Uint8Array[] {
    if (this.#heldBytes > 0) return this.#checked(this.#range.isWhole);
    if (this.#range.isWhole && !this.#hasEnded) corrupt(this.#key, 'its last frame is missing', 0);
    return [];
  }

  /** The data of the frame that is held. */
  #checked(isLast: boolean): Uint8Array[] {
    const [data, rest] = splitPieces(this.#pieces, Math.max(0, this.#heldBytes - HASH_BYTES));
    const found = Buffer.concat(rest);
    const isCut = found.length < HASH_BYTES;
    this.#check(data, isCut ? undefined : found.readBigUInt64LE(), isLast);
    this.#pieces = [];
    this.#heldBytes = 0;
    return data;
  }

  /** Compares the data of the next frame with its hash, if there is one. */
  #check(data: readonly Uint8Array[], found: bigint | undefined, isLast: boolean): void {
    if ((this.#xxh3.hash(data) ^ placeOf(this.#index, isLast)) !== found) {
      const begin = this.#index * FRAME_BYTES;
      const end = data.reduce((sum, { length }) => sum + length, begin);
      corrupt(this.#key, `the checksum of bytes ${begin} to ${end} does not fit`, begin);
    }
    this.#index += 1;
    this.#hasEnded = isLast;
  }
}

function checkBytes(check: bigint): Uint8Array {
  const bytes = new Uint8Array(HASH_BYTES);
  new DataView(bytes.buffer).setBigUint64(0, check, true);
  return bytes;
}

function hashIn(bytes: Uint8Array): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
}

/** The data of a whole blob. */
async function* checkedBlob(
  upstream: BlobStore,
  key: string,
  options: GetOptions,
  sizeOf: (storedBytes: number) => number,
): AsyncGenerator<Uint8Array, void, undefined> {
  checkKey(key);
  const memoryOf = (storedBytes: number) => memoryFor(options, sizeOf(storedBytes));
  const range = { firstIndex: 0, isWhole: true, offsetBytes: 0, memoryOf };
  const frames = new FrameReader(key, await openXxh3(), range);
  const chunks = getFramed(upstream, key, { ...options, into: undefined }, frames);
  for await (const chunk of chunks) {
    for (const data of frames.push(chunk)) yield data;
  }
  for (const data of frames.end()) yield data;
}

/** A range out of the frames around it. */
async function* checkedRange(
  upstream: BlobStore,
  key: string,
  options: GetOptions,
  sizeOf: (storedBytes: number) => number,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { offsetBytes = 0, lengthBytes, signal } = options;
  checkKey(key);
  checkRange(offsetBytes, lengthBytes);
  checkInto(options);
  const info = (await upstream.head(key, { signal })) ?? failNotFound(upstream.name, key);
  const sizeBytes = sizeOf(info.sizeBytes);
  const end = rangeEnd(key, sizeBytes, offsetBytes, lengthBytes);
  const count = frameCount(sizeBytes);
  const index = Math.min(count - 1, Math.floor(offsetBytes / FRAME_BYTES));
  const until = Math.max(index + 1, Math.ceil(end / FRAME_BYTES));
  const from = index * STRIDE;
  const to = Math.min(until * STRIDE, info.sizeBytes);
  const frames = new FrameReader(key, await openXxh3(), {
    ...{ firstIndex: index, isWhole: until === count, offsetBytes },
    memoryOf: () => memoryFor(options, end - offsetBytes),
  });
  let at = index * FRAME_BYTES;
  const chosen = (data: Uint8Array): Uint8Array => {
    const part = data.subarray(Math.max(0, offsetBytes - at), Math.max(0, end - at));
    at += data.length;
    return part;
  };
  const range = { offsetBytes: from, lengthBytes: to - from, into: undefined };
  const version = options.version ?? info.version;
  const rangeOptions = { ...options, ...range, version };
  for await (const chunk of getFramed(upstream, key, rangeOptions, frames)) {
    for (const data of frames.push(chunk)) {
      const part = chosen(data);
      if (part.length > 0) yield part;
    }
  }
  for (const data of frames.end()) {
    const part = chosen(data);
    if (part.length > 0) yield part;
  }
}

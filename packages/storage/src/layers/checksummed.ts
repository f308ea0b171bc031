/**
 * Finds every changed, missing, added or moved byte when it is read, also in a range.
 *
 * Layout: the blob in frames of 256 KiB of data, the last one shorter, each followed by 8 bytes:
 *
 *     | data 0 .. 256 KiB | xxh64 | data | xxh64 | ... | last data | xxh64 |
 *
 * The hash (little endian) is seeded with twice the frame's index, plus 1 for the last frame, so a
 * frame that was cut off, repeated or moved does not fit its place, and a blob that was cut between
 * two frames has no last one. An empty blob is one frame. The size of the data follows from the
 * size of the blob, so head and list read nothing more; a range reads the frames around it, in one
 * get. Whoever reads the blob without this layer sees the frames.
 *
 * xxh64 finds faults, not attacks: where bytes must withstand somebody who can write to the store,
 * keep a SHA-256 elsewhere, as checkpoints do. Source of the seeding: the STREAM construction of
 * Hoang, Reyhanitabar, Rogaway, Vizár (2015), used here without encryption.
 */
import { fail } from '@vramkit/core';
import { chunksOf, inParts } from '../blob-body.js';
import { checkKey, checkRange, rangeEnd } from '../blob-key.js';
import type { BlobBody, BlobInfo, BlobStore, GetOptions } from '../blob-store.js';
import { failNotFound } from '../store-error.js';
import { openXxh64, type Xxh64 } from '../xxh64.js';
import { wrapStore } from './wrap.js';

/** Bytes of data in a frame; a part of the format. */
export const FRAME_BYTES = 2 ** 18;

const HASH_BYTES = 8;
const STRIDE = FRAME_BYTES + HASH_BYTES;

/** A store whose blobs carry their checksums; `upstream` stays the caller's. */
export function checksummedStore(upstream: BlobStore): BlobStore {
  const { capabilities } = upstream;
  const sizeOf = (key: string, storedBytes: number): number => {
    const frames = Math.max(1, Math.ceil(storedBytes / STRIDE));
    const sizeBytes = storedBytes - frames * HASH_BYTES;
    if (sizeBytes < 0 || (frames > 1 && sizeBytes <= (frames - 1) * FRAME_BYTES)) {
      corrupt(key, `a blob of ${storedBytes} B has no whole frame at its end`);
    }
    return sizeBytes;
  };
  const describe = (info: BlobInfo): BlobInfo => ({
    ...info,
    sizeBytes: sizeOf(info.key, info.sizeBytes),
  });
  const dataOf = (storedBytes: number): number =>
    Math.max(0, storedBytes - HASH_BYTES * Math.ceil(storedBytes / STRIDE + 1));

  return wrapStore(upstream, {
    capabilities: {
      ...capabilities,
      maxBlobBytes: dataOf(capabilities.maxBlobBytes),
      maxConditionalBytes: dataOf(capabilities.maxConditionalBytes),
    },
    async put(key, body, options = {}) {
      checkKey(key);
      const { sizeBytes } = body instanceof Uint8Array ? { sizeBytes: body.length } : options;
      const xxh64 = await openXxh64();
      const framed = { [Symbol.asyncIterator]: () => inFrames(body, sizeBytes, xxh64) };
      const storedBytes =
        sizeBytes === undefined ? undefined : sizeBytes + HASH_BYTES * frameCount(sizeBytes);
      const info = await upstream.put(key, framed, { ...options, sizeBytes: storedBytes });
      return describe(info);
    },
    async *get(key, options = {}) {
      const { offsetBytes = 0, lengthBytes } = options;
      checkKey(key);
      checkRange(offsetBytes, lengthBytes);
      const xxh64 = await openXxh64();
      if (offsetBytes === 0 && lengthBytes === undefined) {
        yield* checkedFrames(upstream.get(key, options), { key, xxh64, index: 0, isWhole: true });
        return;
      }
      const info = await upstream.head(key, { signal: options.signal });
      const { sizeBytes, version } = describe(info ?? failNotFound(upstream.name, key));
      const end = rangeEnd(key, sizeBytes, offsetBytes, lengthBytes);
      yield* checkedRange(upstream, key, { version, ...options, offsetBytes }, end, {
        sizeBytes,
        xxh64,
      });
    },
    async head(key, options) {
      const info = await upstream.head(key, options);
      return info === undefined ? undefined : describe(info);
    },
    async *list(prefix, options) {
      for await (const info of upstream.list(prefix, options)) yield describe(info);
    },
  });
}

function frameCount(sizeBytes: number): number {
  return Math.max(1, Math.ceil(sizeBytes / FRAME_BYTES));
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
  xxh64: Xxh64,
): AsyncGenerator<Uint8Array, void, undefined> {
  let index = 0;
  for await (const [data, isLast] of withLast(
    inParts(chunksOf(body, { sizeBytes }), FRAME_BYTES),
  )) {
    yield data;
    yield xxh64.bytes(data, 2 * index + (isLast ? 1 : 0));
    index += 1;
  }
  if (index === 0) yield xxh64.bytes(new Uint8Array(0), 1);
}

interface FrameContext {
  readonly key: string;
  readonly xxh64: Xxh64;
  /** Index of the first frame. */
  readonly index: number;
  /** Whether the bytes go up to the end of the blob. */
  readonly isWhole: boolean;
}

/** The data of whole frames that were checked, one chunk each. */
async function* checkedFrames(
  stored: AsyncIterable<Uint8Array>,
  { key, xxh64, index: first, isWhole }: FrameContext,
): AsyncGenerator<Uint8Array, void, undefined> {
  let index = first;
  let isEnded = false;
  for await (const [frame, isLast] of withLast(inParts(stored, STRIDE))) {
    const at = index * FRAME_BYTES;
    isEnded = isWhole && isLast;
    const data = frame.subarray(0, Math.max(0, frame.length - HASH_BYTES));
    const expected = xxh64.bytes(data, 2 * index + (isEnded ? 1 : 0));
    const found = frame.subarray(data.length);
    if (found.length !== HASH_BYTES || !expected.every((byte, i) => byte === found[i])) {
      corrupt(key, `the checksum of bytes ${at} to ${at + data.length} does not fit`, at);
    }
    index += 1;
    if (data.length > 0) yield data;
  }
  if (isWhole && !isEnded) corrupt(key, 'its last frame is missing', index * FRAME_BYTES);
}

/** A range out of the frames around it. */
async function* checkedRange(
  upstream: BlobStore,
  key: string,
  options: GetOptions & { readonly offsetBytes: number },
  end: number,
  { sizeBytes, xxh64 }: { readonly sizeBytes: number; readonly xxh64: Xxh64 },
): AsyncGenerator<Uint8Array, void, undefined> {
  const { offsetBytes } = options;
  const count = frameCount(sizeBytes);
  const index = Math.min(count - 1, Math.floor(offsetBytes / FRAME_BYTES));
  const until = Math.max(index + 1, Math.ceil(end / FRAME_BYTES));
  const from = index * STRIDE;
  const to = Math.min(until * STRIDE, sizeBytes + HASH_BYTES * count);
  const stored = upstream.get(key, { ...options, offsetBytes: from, lengthBytes: to - from });
  let at = index * FRAME_BYTES;
  for await (const data of checkedFrames(stored, { key, xxh64, index, isWhole: until === count })) {
    const chosen = data.subarray(Math.max(0, offsetBytes - at), Math.max(0, end - at));
    at += data.length;
    if (chosen.length > 0) yield chosen;
  }
}

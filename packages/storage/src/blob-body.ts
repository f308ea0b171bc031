/**
 * Bodies as chunks: counted, cut to a size, gathered into one array.
 *
 * Every function here is a plain pass over an iterable; none holds more than one part.
 */
import { assertArgument, throwIfAborted } from '@vramkit/core';
import type { BlobBody, PutOptions } from './blob-store.js';

/** @throws VramError `invalid-argument` for what callers without types may give. */
function checkBody(body: BlobBody): BlobBody {
  const isBody = body instanceof Uint8Array || Symbol.asyncIterator in Object(body);
  assertArgument(isBody, 'a body is a Uint8Array or an AsyncIterable of them');
  return body;
}

// Methods of what one pass uses up: iterators and generators, streams of Node, streams of the web.
const ONE_PASS = ['next', 'read', 'getReader'];

/** Whether a body gives its bytes from the start each time it is read. */
export function isReplayable(body: BlobBody): boolean {
  return checkBody(body) instanceof Uint8Array || !ONE_PASS.some((method) => method in body);
}

/** A body of `chunks`, which read `body`; it can be read again where `body` can. */
export function bodyOf(body: BlobBody, chunks: () => AsyncGenerator<Uint8Array>): BlobBody {
  return isReplayable(body) ? { [Symbol.asyncIterator]: chunks } : chunks();
}

/** Bytes of a body, where they are known before it is read. */
export function knownSize(body: BlobBody, options: PutOptions = {}): number | undefined {
  return body instanceof Uint8Array ? body.length : options.sizeBytes;
}

/**
 * The chunks of a body that are not empty; checks the signal before each and the size at the end.
 * @throws VramError `aborted`; `invalid-argument` where the size differs from `sizeBytes`, or the
 * body is neither an array of bytes nor an iterable of some.
 */
export async function* chunksOf(
  body: BlobBody,
  { sizeBytes, signal }: PutOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  let total = 0;
  for await (const chunk of checkBody(body) instanceof Uint8Array ? [body] : body) {
    throwIfAborted(signal);
    assertArgument(chunk instanceof Uint8Array, 'a body gives Uint8Array chunks');
    total += chunk.length;
    if (sizeBytes !== undefined && total > sizeBytes) break;
    if (chunk.length > 0) yield chunk;
  }
  throwIfAborted(signal);
  assertArgument(
    sizeBytes === undefined || total === sizeBytes,
    `the body gave ${total} B, sizeBytes says ${sizeBytes}`,
    { sizeBytes, total },
  );
}

/**
 * The bytes of `chunks` in parts of exactly `partBytes`, but for a shorter last one; no bytes, no
 * part. A part is a view of the chunk where one chunk holds it, else a copy.
 */
export async function* inParts(
  chunks: AsyncIterable<Uint8Array>,
  partBytes: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  let part: Uint8Array | undefined;
  let filled = 0;
  for await (const chunk of chunks) {
    let at = 0;
    while (at < chunk.length) {
      if (part === undefined && chunk.length - at >= partBytes) {
        yield chunk.subarray(at, (at += partBytes));
        continue;
      }
      part ??= new Uint8Array(partBytes);
      const take = Math.min(partBytes - filled, chunk.length - at);
      part.set(chunk.subarray(at, at + take), filled);
      at += take;
      filled += take;
      if (filled === partBytes) {
        yield part;
        part = undefined;
        filled = 0;
      }
    }
  }
  if (part !== undefined) yield part.subarray(0, filled);
}

/** The first `sizeBytes` of pieces, and the rest; no piece of the rest is empty. */
export function splitPieces(
  pieces: readonly Uint8Array[],
  sizeBytes: number,
): [Uint8Array[], Uint8Array[]] {
  const [first, rest]: [Uint8Array[], Uint8Array[]] = [[], []];
  let room = sizeBytes;
  for (const piece of pieces) {
    if (room > 0) first.push(piece.subarray(0, room));
    if (room < piece.length) rest.push(piece.subarray(Math.max(0, room)));
    room -= piece.length;
  }
  return [first, rest];
}

/** All bytes of an iterable in one array; a single chunk is returned as it is. */
export async function gather(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return joined(parts);
}

/** Parts one after the other: a single one as it is, else in a new array. */
export function joined(parts: readonly Uint8Array[]): Uint8Array {
  const [first] = parts;
  if (parts.length === 1 && first !== undefined) return first;
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

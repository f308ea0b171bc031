/**
 * Keys that mean the same in every store, and cannot leave the place they are below.
 *
 * A key is one or more segments joined by `/`. A segment is not empty, not `.` or `..`, has at most
 * 200 bytes of UTF-8, no control character, no backslash (a separator elsewhere) and no lone
 * surrogate (which has no UTF-8), and does not begin with `.vramkit`, under which adapters keep
 * their own files. A key has at most 900 bytes. These are the names that a Linux file, an object of
 * S3, an HDFS path and a column of text can all hold, with room for what an adapter puts before.
 *
 * Limit: file systems that ignore case or normalise Unicode take two such keys for one.
 */
import { assertArgument, checkInteger, fail } from '@vramkit/core';
import type { GetOptions } from './blob-store.js';

/** Longest key in bytes of UTF-8. */
export const MAX_KEY_BYTES = 900;

const MAX_SEGMENT_BYTES = 200;
// C0 and C1 controls, the backslash, and surrogates that are not part of a pair.
const FORBIDDEN = /[\p{Cc}\\\p{Cs}]/u;

/** Bytes of `text` in UTF-8. */
export function utf8Bytes(text: string): number {
  return Buffer.byteLength(text);
}

/**
 * Checks a key and returns it.
 * @throws VramError `invalid-argument` for a key outside the rules of this module.
 */
export function checkKey(key: string): string {
  const problem = typeof key === 'string' ? keyProblem(key) : 'it is not a string';
  assertArgument(problem === undefined, `bad key ${JSON.stringify(key)}: ${problem}`, { key });
  return key;
}

/** Whether {@link checkKey} accepts a name. */
export function isKey(name: string): boolean {
  return keyProblem(name) === undefined;
}

function keyProblem(key: string): string | undefined {
  if (FORBIDDEN.test(key)) return 'it has a control character, a backslash or half a character';
  if (utf8Bytes(key) > MAX_KEY_BYTES) return `it has more than ${MAX_KEY_BYTES} bytes`;
  for (const segment of key.split('/')) {
    if (segment === '') return 'it is empty or has an empty segment';
    if (segment === '.' || segment === '..') return `it has a segment '${segment}'`;
    if (segment.startsWith('.vramkit')) return "segments that begin with '.vramkit' are reserved";
    if (utf8Bytes(segment) > MAX_SEGMENT_BYTES) {
      return `it has a segment of more than ${MAX_SEGMENT_BYTES} bytes`;
    }
  }
  return undefined;
}

/**
 * Checks the prefix of a list: the beginning of some key, or nothing.
 * @throws VramError `invalid-argument` where no key can begin so.
 */
export function checkPrefix(prefix: string): string {
  if (prefix !== '')
    checkKey(prefix.endsWith('/') ? `${prefix}x` : prefix.replace(/\.{1,2}$/, 'x'));
  return prefix;
}

/** Checks offset and length of a range; negative, fractional and unsafe numbers are refused. */
export function checkRange(offsetBytes = 0, lengthBytes?: number): void {
  checkInteger('offsetBytes', offsetBytes);
  if (lengthBytes !== undefined) checkInteger('lengthBytes', lengthBytes);
}

/** Checks memory of the caller's that is there already. @throws VramError `invalid-argument`. */
export function checkInto({ into, lengthBytes }: GetOptions): Uint8Array | undefined {
  return typeof into === 'function' ? undefined : ofLength(into, lengthBytes);
}

/**
 * The caller's memory for a range of a known size, where the caller gives some.
 * @throws VramError `invalid-argument` where it is of another size.
 */
export function memoryFor({ into }: GetOptions, sizeBytes: number): Uint8Array | undefined {
  return ofLength(typeof into === 'function' ? into(sizeBytes) : into, sizeBytes);
}

function ofLength(memory: Uint8Array | undefined, sizeBytes?: number): Uint8Array | undefined {
  if (memory === undefined || memory.length === sizeBytes) return memory;
  return fail(
    'invalid-argument',
    `into has ${memory.length} B of ${sizeBytes ?? 'an unknown number'}`,
  );
}

/**
 * The end of a range of a blob whose size is known.
 * @throws VramError `invalid-argument` where the range does not lie within the blob.
 */
export function rangeEnd(
  key: string,
  sizeBytes: number,
  offsetBytes = 0,
  lengthBytes = sizeBytes - offsetBytes,
): number {
  const end = offsetBytes + lengthBytes;
  assertArgument(
    offsetBytes <= sizeBytes && end <= sizeBytes,
    `bytes [${offsetBytes}, ${end}) do not lie within the ${sizeBytes} B of '${key}'`,
    { key, offsetBytes, lengthBytes, sizeBytes },
  );
  return end;
}

/** Order of keys: by the bytes of their UTF-8. UTF-16 order differs above U+FFFF. */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i += 1) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return fold(x) - fold(y);
  }
  return a.length - b.length;
}

/** Moves surrogates above the rest of the units, where the characters that they spell belong. */
function fold(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit < 0xe000 ? unit + 0x2000 : unit - 0x800;
}

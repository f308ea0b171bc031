/**
 * Python's pickle format, protocol 2: as much of it as plain data needs.
 *
 * Dictionaries, lists, strings, integers and `null`; nothing that runs code when it is read. Items
 * are appended a thousand at a time, as Python's own writer does, because readers in JavaScript
 * push them as arguments of one call.
 */
import { fail } from '@vramkit/core';

/** What can be pickled; numbers are integers. */
export type Picklable =
  string | number | null | readonly Picklable[] | { readonly [key: string]: Picklable };

const BATCH = 1000;
const code = (letter: string): number => letter.charCodeAt(0);

/**
 * The bytes of `value`.
 * @throws VramError `invalid-argument` for a number that is no safe integer.
 */
export function pickle(value: Picklable): Uint8Array {
  const chunks: Uint8Array[] = [];
  const bytes = (...values: number[]): void => void chunks.push(Uint8Array.from(values));
  const encoder = new TextEncoder();
  const uint32 = (count: number): Uint8Array => {
    const four = new Uint8Array(4);
    new DataView(four.buffer).setUint32(0, count, true);
    return four;
  };
  const integer = (each: number): void => {
    if (!Number.isSafeInteger(each)) fail('invalid-argument', `${each} is no integer to pickle`);
    if (each >= -(2 ** 31) && each < 2 ** 31) {
      bytes(code('J'));
      chunks.push(uint32(each >>> 0));
      return;
    }
    const eight = new Uint8Array(8);
    new DataView(eight.buffer).setBigInt64(0, BigInt(each), true);
    bytes(0x8a, 8); // LONG1
    chunks.push(eight);
  };
  const text = (each: string): void => {
    const encoded = encoder.encode(each);
    bytes(code('X'));
    chunks.push(uint32(encoded.length), encoded);
  };
  const write = (each: Picklable): void => {
    if (each === null) bytes(code('N'));
    else if (typeof each === 'number') integer(each);
    else if (typeof each === 'string') text(each);
    else if (isList(each)) {
      bytes(code(']'));
      for (let start = 0; start < each.length; start += BATCH) {
        bytes(code('('));
        for (const item of each.slice(start, start + BATCH)) write(item);
        bytes(code('e'));
      }
    } else {
      bytes(code('}'), code('('));
      for (const [key, item] of Object.entries(each)) {
        text(key);
        write(item);
      }
      bytes(code('u'));
    }
  };
  bytes(0x80, 2); // PROTO 2
  write(value);
  bytes(code('.'));
  const whole = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}

function isList(value: Picklable): value is readonly Picklable[] {
  return Array.isArray(value);
}

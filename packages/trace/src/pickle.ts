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
export function pickle(value: Picklable): Uint8Array<ArrayBuffer> {
  const out = new ByteWriter();
  const integer = (each: number): void => {
    if (!Number.isSafeInteger(each)) fail('invalid-argument', `${each} is no integer to pickle`);
    if (each >= -(2 ** 31) && each < 2 ** 31) {
      out.byte(code('J'));
      out.uint32(each >>> 0);
      return;
    }
    out.byte(0x8a); // LONG1
    out.byte(8);
    out.int64(each);
  };
  const text = (each: string): void => {
    out.byte(code('X'));
    out.text(each);
  };
  const write = (each: Picklable): void => {
    if (each === null) out.byte(code('N'));
    else if (typeof each === 'number') integer(each);
    else if (typeof each === 'string') text(each);
    else if (isList(each)) {
      out.byte(code(']'));
      for (let start = 0; start < each.length; start += BATCH) {
        out.byte(code('('));
        for (const item of each.slice(start, start + BATCH)) write(item);
        out.byte(code('e'));
      }
    } else {
      out.byte(code('}'));
      out.byte(code('('));
      for (const [key, item] of Object.entries(each)) {
        text(key);
        write(item);
      }
      out.byte(code('u'));
    }
  };
  out.byte(0x80); // PROTO 2
  out.byte(2);
  write(value);
  out.byte(code('.'));
  return out.whole();
}

/**
 * Bytes in one buffer that doubles: a long timeline has millions of parts, and an object for each
 * would not fit into memory.
 */
class ByteWriter {
  #buffer = new Uint8Array(1024);
  #view = new DataView(this.#buffer.buffer);
  #length = 0;
  readonly #encoder = new TextEncoder();

  byte(value: number): void {
    this.#reserve(1);
    this.#buffer[this.#length++] = value;
  }

  uint32(value: number): void {
    this.#reserve(4);
    this.#view.setUint32(this.#length, value, true);
    this.#length += 4;
  }

  int64(value: number): void {
    this.#reserve(8);
    this.#view.setBigInt64(this.#length, BigInt(value), true);
    this.#length += 8;
  }

  /** UTF-8 behind its length. */
  text(value: string): void {
    // A code unit takes three bytes at most.
    this.#reserve(4 + 3 * value.length);
    const start = this.#length + 4;
    const { written } = this.#encoder.encodeInto(value, this.#buffer.subarray(start));
    this.uint32(written);
    this.#length += written;
  }

  whole(): Uint8Array<ArrayBuffer> {
    return this.#buffer.slice(0, this.#length);
  }

  /** Makes room for `count` more bytes. */
  #reserve(count: number): void {
    const needed = this.#length + count;
    if (needed <= this.#buffer.length) return;
    const larger = new Uint8Array(Math.max(needed, 2 * this.#buffer.length));
    larger.set(this.#buffer);
    this.#buffer = larger;
    this.#view = new DataView(larger.buffer);
  }
}

function isList(value: Picklable): value is readonly Picklable[] {
  return Array.isArray(value);
}

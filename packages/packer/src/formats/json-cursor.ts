/**
 * A strict cursor over JSON text in bytes, for headers whose shape is known.
 *
 * The caller says what it expects next, so a header of the wrong shape is refused where it
 * departs, nothing is built that the caller did not ask for, and repeated keys (which
 * `JSON.parse` drops in silence) are seen. Memory is what the caller keeps: a deeply nested or
 * padded header costs nothing.
 *
 * Not covered, because no header needs it: numbers other than non-negative integers are only
 * skipped.
 */
import { failCorrupt } from './format-error.js';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const MAX_NESTING = 16;

/** Reads JSON values one by one; see the head comment of this file. */
export class JsonCursor {
  readonly #file: string;
  readonly #bytes: Uint8Array;
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  #at = 0;

  /** Starts at the first byte of `bytes`, a part of `file`. */
  constructor(file: string, bytes: Uint8Array) {
    this.#file = file;
    this.#bytes = bytes;
  }

  /** Refuses the text at the current position. @throws VramError `corrupt-data`, always. */
  fail(message: string): never {
    return failCorrupt(this.#file, `JSON header at byte ${this.#at}: ${message}`, {
      position: this.#at,
    });
  }

  /** The next character that is not white space, not consumed; empty at the end. */
  peek(): string {
    for (;;) {
      const byte = this.#bytes[this.#at];
      if (byte === undefined) return '';
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) {
        return String.fromCharCode(byte);
      }
      this.#at += 1;
    }
  }

  /** Consumes one expected punctuation character. */
  expect(character: string): void {
    if (this.peek() !== character) this.fail(`expected '${character}'`);
    this.#at += 1;
  }

  /** Refuses anything but white space up to the end. */
  expectEnd(): void {
    if (this.peek() !== '') this.fail('text after the end of the object');
  }

  /** Visits an object: `visit` consumes the value of each key. Repeated keys are refused. */
  object(visit: (key: string) => void, options: { maxEntries: number }): void {
    const seen = new Set<string>();
    this.expect('{');
    if (this.#closes('}')) return;
    do {
      if (seen.size >= options.maxEntries) this.fail(`more than ${options.maxEntries} entries`);
      const key = this.string();
      if (seen.has(key)) this.fail(`the key '${key.slice(0, 80)}' appears twice`);
      seen.add(key);
      this.expect(':');
      visit(key);
    } while (this.#continues('}'));
  }

  /** Consumes an array of non-negative integers. */
  integers(options: { maxEntries: number }): number[] {
    const values: number[] = [];
    this.expect('[');
    if (this.#closes(']')) return values;
    do {
      if (values.length >= options.maxEntries) this.fail(`more than ${options.maxEntries} entries`);
      values.push(this.integer());
    } while (this.#continues(']'));
    return values;
  }

  /** Consumes a non-negative integer below 2^53. */
  integer(): number {
    this.peek();
    const start = this.#at;
    while (isDigit(this.#bytes[this.#at]) && this.#at - start < 17) this.#at += 1;
    const text = String.fromCharCode(...this.#bytes.subarray(start, this.#at));
    const value = Number(text);
    const canonical = text === '0' || /^[1-9]/.test(text);
    if (!canonical || !Number.isSafeInteger(value)) this.fail('expected an integer below 2^53');
    return value;
  }

  /** Consumes a string. */
  string(): string {
    if (this.peek() !== '"') this.fail('expected a string');
    const start = this.#at;
    let escaped = false;
    for (this.#at += 1; this.#bytes[this.#at] !== QUOTE; this.#at += 1) {
      const byte = this.#bytes[this.#at];
      if (byte === undefined || byte < 0x20) this.fail('unterminated string');
      if (byte !== BACKSLASH) continue;
      escaped = true;
      this.#at += 1;
    }
    this.#at += 1;
    try {
      const text = this.#decoder.decode(this.#bytes.subarray(start, this.#at));
      // Escapes are rare in names; the platform's own rules decide what they mean.
      return escaped ? String(JSON.parse(text)) : text.slice(1, -1);
    } catch {
      return this.fail('malformed string');
    }
  }

  /** Consumes one value of any kind without keeping it. */
  skip(depth = 0): void {
    if (depth > MAX_NESTING) this.fail(`nested deeper than ${MAX_NESTING}`);
    const next = this.peek();
    if (next === '"') this.string();
    else if (next === '{') this.object(() => this.skip(depth + 1), { maxEntries: 65_536 });
    else if (next === '[') this.#skipArray(depth);
    else this.#skipLiteral();
  }

  #skipArray(depth: number): void {
    this.expect('[');
    if (this.#closes(']')) return;
    do this.skip(depth + 1);
    while (this.#continues(']'));
  }

  #skipLiteral(): void {
    const text = String.fromCharCode(...this.#bytes.subarray(this.#at, this.#at + 32));
    const match = /^(?:true|false|null|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)/.exec(text);
    if (match === null) this.fail('expected a value');
    else this.#at += match[0].length;
  }

  #closes(character: string): boolean {
    if (this.peek() !== character) return false;
    this.#at += 1;
    return true;
  }

  #continues(close: string): boolean {
    if (this.#closes(close)) return false;
    this.expect(',');
    return true;
  }
}

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x30 && byte <= 0x39;
}

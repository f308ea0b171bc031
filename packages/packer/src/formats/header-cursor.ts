/**
 * A forward-only cursor over the header of a file, with hard limits.
 *
 * Mental model: `await ensure(n)` promises that the next `n` bytes are in memory, or rejects
 * because the file or the permitted header ends before; the `u8` ... `utf8` readers then take
 * them without waiting. One window of the file is kept, so memory is one window plus what the
 * caller keeps.
 *
 * Invariants: the position never passes `limit = min(file size, header cap)`; nothing is
 * allocated for a length that was read from the file before `ensure` or `requireLeft` compared
 * it with what is left. Integers are little-endian; 64-bit ones above 2^53 are refused where a
 * size is expected.
 */
import { type ByteSource } from './byte-source.js';
import { failCorrupt, failUnsupported } from './format-error.js';

const WINDOW_BYTES = 1 << 18;

/** Reads a header field by field; see the head comment of this file. */
export class HeaderCursor {
  readonly #source: ByteSource;
  readonly #signal: AbortSignal | undefined;
  readonly #capBytes: number;
  readonly #strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  readonly #lenient = new TextDecoder('utf-8', { ignoreBOM: true });
  #bytes = new Uint8Array(0);
  #view = new DataView(this.#bytes.buffer);
  #windowStart = 0;
  #at = 0;

  /** Starts at the first byte of `source`; `capBytes` is the longest header to accept. */
  constructor(source: ByteSource, capBytes: number, signal: AbortSignal | undefined) {
    this.#source = source;
    this.#capBytes = capBytes;
    this.#signal = signal;
  }

  /** Position of the next byte in the file. */
  get position(): number {
    return this.#windowStart + this.#at;
  }

  /** Bytes that a header may still take. */
  get left(): number {
    return Math.min(this.#source.sizeBytes, this.#capBytes) - this.position;
  }

  /** Whether the next `count` bytes are already in memory. */
  has(count: number): boolean {
    return this.#at + count <= this.#bytes.byteLength;
  }

  /**
   * Refuses `count` more bytes of `what` where the file or the header cap ends before.
   * @throws VramError `corrupt-data` for the file's end, `unsupported` for the cap.
   */
  requireLeft(count: number, what: string): void {
    if (count <= this.left) return;
    const { name, sizeBytes } = this.#source;
    const context = { what, offset: this.position, neededBytes: count, sizeBytes };
    if (this.position + count > sizeBytes) {
      failCorrupt(
        name,
        `${what} at ${this.position} needs ${count} B, the file has ${sizeBytes} B`,
        context,
      );
    }
    failUnsupported(
      name,
      `${what} at ${this.position} passes the header cap of ${this.#capBytes} B`,
      {
        ...context,
        capBytes: this.#capBytes,
      },
    );
  }

  /** Brings the next `count` bytes of `what` into memory; @throws as {@link requireLeft}. */
  async ensure(count: number, what: string): Promise<void> {
    if (this.has(count)) return;
    this.requireLeft(count, what);
    const start = this.position;
    const length = Math.min(Math.max(count, WINDOW_BYTES), this.left);
    this.#bytes = new Uint8Array(await this.#source.read(start, length, this.#signal));
    this.#view = new DataView(this.#bytes.buffer);
    this.#windowStart = start;
    this.#at = 0;
  }

  /** Next byte. */
  u8(): number {
    return this.#view.getUint8(this.#advance(1));
  }

  /** Next 32-bit unsigned integer. */
  u32(): number {
    return this.#view.getUint32(this.#advance(4), true);
  }

  /** Next 64-bit unsigned integer. */
  u64(): bigint {
    return this.#view.getBigUint64(this.#advance(8), true);
  }

  /**
   * Next 64-bit unsigned integer as a number.
   * @throws VramError `corrupt-data` above 2^53 - 1.
   */
  size(what: string): number {
    const value = this.u64();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      failCorrupt(this.#source.name, `${what} is ${value}`, { what, value: String(value) });
    }
    return Number(value);
  }

  /** A view of the next `count` bytes, valid until the next `ensure`. */
  take(count: number): DataView {
    const at = this.#advance(count);
    return new DataView(this.#bytes.buffer, at, count);
  }

  /** The next `count` bytes as text; malformed UTF-8 becomes U+FFFD. */
  text(count: number): string {
    const at = this.#advance(count);
    return this.#lenient.decode(this.#bytes.subarray(at, at + count));
  }

  /** The next `count` bytes as text; @throws VramError `corrupt-data` on malformed UTF-8. */
  strictText(count: number, what: string): string {
    const at = this.#advance(count);
    try {
      return this.#strict.decode(this.#bytes.subarray(at, at + count));
    } catch {
      return failCorrupt(this.#source.name, `${what} at ${this.position} is not UTF-8`, { what });
    }
  }

  #advance(count: number): number {
    const at = this.#at;
    // A DataView throws RangeError past its end, so a missing `ensure` cannot read stale bytes.
    this.#at += count;
    return at;
  }
}

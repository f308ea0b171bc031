/**
 * Little-endian bytes one after the other, as GGUF headers are written.
 */

/** Collects bytes; every method gives the writer back. */
export class ByteWriter {
  #bytes = new Uint8Array(1024);
  #length = 0;

  /** 32-bit unsigned integer. */
  u32(value: number): this {
    return this.bytes(new Uint8Array(Uint32Array.of(value).buffer));
  }

  /** 32-bit float. */
  f32(value: number): this {
    return this.bytes(new Uint8Array(Float32Array.of(value).buffer));
  }

  /** 64-bit integer. */
  u64(value: number | bigint): this {
    return this.bytes(new Uint8Array(BigUint64Array.of(BigInt(value)).buffer));
  }

  /** Length and UTF-8 text. */
  string(text: string): this {
    const bytes = new TextEncoder().encode(text);
    return this.u64(bytes.byteLength).bytes(bytes);
  }

  /** Bytes as they are. */
  bytes(bytes: Uint8Array): this {
    const length = this.#length + bytes.byteLength;
    if (length > this.#bytes.byteLength) {
      const grown = new Uint8Array(Math.max(length, this.#bytes.byteLength * 2));
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    this.#bytes.set(bytes, this.#length);
    this.#length = length;
    return this;
  }

  /** Zeros up to a multiple of so many bytes. */
  pad(multiple: number): this {
    return this.bytes(new Uint8Array((multiple - (this.#length % multiple)) % multiple));
  }

  /** A copy of what was written. */
  finish(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#length);
  }
}

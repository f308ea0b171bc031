/** The header of a blob in RADOS, whose layout rados.ts draws. */
import { fail } from '@vramkit/core';

/** Bytes before the data. */
export const HEADER_BYTES = 64;
const MAGIC = 'vramkit1';

/** What the first bytes of a head say. */
export interface Header {
  /** As they were read. */
  readonly bytes: Uint8Array;
  /** Of the put; empty where they are no header: by damage, or of another program. */
  readonly id: string;
  readonly sizeBytes: number;
  readonly isStriped: boolean;
}

/** The bytes of a header. */
export function encodeHeader(id: Uint8Array, sizeBytes: number, isStriped: boolean): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  bytes.set(new TextEncoder().encode(MAGIC));
  bytes.set(id, 8);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(24, BigInt(sizeBytes), true);
  view.setBigUint64(32, isStriped ? 1n : 0n, true);
  return bytes;
}

/** What the first bytes of an object are as a header. */
export function decodeHeader(bytes: Uint8Array): Header {
  const magic = new TextDecoder().decode(bytes.subarray(0, MAGIC.length));
  if (bytes.length < HEADER_BYTES || magic !== MAGIC) {
    return { bytes, id: '', sizeBytes: 0, isStriped: false };
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  return {
    bytes,
    id: Buffer.from(bytes.subarray(8, 24)).toString('hex'),
    sizeBytes: Number(view.getBigUint64(24, true)),
    isStriped: view.getBigUint64(32, true) === 1n,
  };
}

/** @throws VramError `corrupt-data` for what is no header. */
export function whole(key: string, header: Header): Header {
  if (header.id === '')
    fail('corrupt-data', `the object of '${key}' has no header of a blob`, { key });
  return header;
}

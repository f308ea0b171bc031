/**
 * The files of a checkpoint: safetensors shards, an index that other tools know, and a manifest.
 *
 *     NAME/model-00001-<hash>.safetensors    one or more shards, each named by its content
 *     NAME/manifest.json                     put after them: without it there is no checkpoint
 *     NAME/model.safetensors.index.json      which tensor is in which shard, for other tools
 *
 * The manifest is two lines: JSON, and the SHA-256 of that line. It holds where every tensor lies,
 * the SHA-256 of every shard and an XXH3 of every 1 MiB of it, so a part of a tensor is checked
 * without reading the shard. A shard's data begins at a multiple of 64 bytes.
 *
 * Source: the safetensors format (Hugging Face, 2022): 8 bytes of header length, little endian, a
 * JSON header padded with spaces, tensors back to back.
 */
import { createHash } from 'node:crypto';
import { fail, isVramError, VramError } from '@vramkit/core';

/** Bytes that one chunk hash covers. */
export const HASHED_BYTES = 2 ** 20;

/** A tensor to save. */
export interface CheckpointTensor {
  readonly name: string;
  /** Safetensors spelling, such as 'F32' or 'BF16'. */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Its bytes, row-major, little endian; must not change until the save has ended. */
  readonly bytes: Uint8Array;
}

/** Where one tensor is. */
export interface StoredTensor {
  /** Safetensors spelling, such as 'F32' or 'BF16'. */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Index into {@link CheckpointManifest.shards}. */
  readonly shard: number;
  /** First byte in the shard's blob, its header included. */
  readonly offsetBytes: number;
  readonly sizeBytes: number;
}

/** One shard. */
export interface StoredShard {
  /** Key below the checkpoint's name. */
  readonly file: string;
  readonly sizeBytes: number;
  readonly sha256: string;
  /** XXH3 of each MiB of the blob, 64 bits as hexadecimal digits. */
  readonly xxh3: readonly string[];
}

/** A whole checkpoint, as plain data. */
export interface CheckpointManifest {
  readonly format: 'vramkit-checkpoint';
  readonly formatVersion: 2;
  readonly name: string;
  readonly shards: readonly StoredShard[];
  readonly tensors: Readonly<Record<string, StoredTensor>>;
  /** What the caller gave: step, loss, whatever; plain JSON. */
  readonly metadata: Readonly<Record<string, unknown>>;
}

/** SHA-256 of a body as 64 hexadecimal digits. */
export async function sha256Of(chunks: AsyncIterable<Uint8Array>): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of chunks) hash.update(chunk);
  return hash.digest('hex');
}

function sha256Hex(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/**
 * Metadata as they are read back.
 * @throws VramError `invalid-argument` where they are no JSON.
 */
export function plainJson(
  metadata: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  try {
    // Of an object JSON gives an object.
    return JSON.parse(JSON.stringify(metadata)) as Readonly<Record<string, unknown>>;
  } catch (cause) {
    throw new VramError('invalid-argument', 'metadata are no plain JSON', { cause });
  }
}

/** The manifest as it is stored. */
export function encodeManifest(manifest: CheckpointManifest): Uint8Array {
  const line = new TextEncoder().encode(JSON.stringify(manifest));
  return new TextEncoder().encode(`${new TextDecoder().decode(line)}\n${sha256Hex(line)}\n`);
}

/**
 * Reads a manifest.
 * @throws VramError `corrupt-data` where its hash or its form does not fit; `unsupported` for
 * another version of the format.
 */
export function decodeManifest(key: string, bytes: Uint8Array): CheckpointManifest {
  const corrupt = (why: string): never => fail('corrupt-data', `'${key}': ${why}`, { key });
  const end = bytes.indexOf(10); // JSON.stringify writes no line feed
  if (end < 0) corrupt('the manifest is cut off');
  const line = bytes.subarray(0, end);
  const hash = new TextDecoder().decode(bytes.subarray(end + 1));
  if (hash !== `${sha256Hex(line)}\n`) corrupt("the manifest's hash does not fit");
  try {
    // A foreign boundary: the hash says that we wrote it, format and version say what it is.
    const manifest = JSON.parse(new TextDecoder().decode(line)) as CheckpointManifest;
    if (manifest.format !== 'vramkit-checkpoint') corrupt('not a checkpoint');
    if (manifest.formatVersion !== 2) {
      fail('unsupported', `'${key}' has format version ${String(manifest.formatVersion)}`, { key });
    }
    return manifest;
  } catch (error) {
    return isVramError(error) ? fail(error.code, error.message, error.context) : corrupt('no JSON');
  }
}

/** The safetensors header of one shard, and where its data begins. */
export function encodeHeader(tensors: readonly CheckpointTensor[]): Uint8Array {
  let offset = 0;
  const entries = tensors.map(({ name, dtype, shape, bytes }) => {
    const begin = offset;
    offset += bytes.length;
    return [name, { dtype, shape, data_offsets: [begin, offset] }] as const;
  });
  const record = Object.fromEntries([['__metadata__', { format: 'pt' }] as const, ...entries]);
  const text = JSON.stringify(record);
  const json = new TextEncoder().encode(text);
  const padded = Math.ceil((8 + json.length) / 64) * 64;
  const header = new Uint8Array(padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded - 8), true);
  header.set(json, 8);
  return header;
}

/** Bytes per element of a safetensors dtype, or `undefined` where it is unknown here. */
export function dtypeSize(dtype: string): number | undefined {
  const sizes: Readonly<Record<string, number>> = {
    F64: 8,
    I64: 8,
    U64: 8,
    F32: 4,
    I32: 4,
    U32: 4,
    F16: 2,
    BF16: 2,
    I16: 2,
    U16: 2,
    F8_E4M3: 1,
    F8_E5M2: 1,
    I8: 1,
    U8: 1,
    BOOL: 1,
  };
  return Object.hasOwn(sizes, dtype) ? sizes[dtype] : undefined;
}

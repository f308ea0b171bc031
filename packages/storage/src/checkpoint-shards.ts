/** Tensors into shards; a shard into a store: hashed first, then sent unless it is there. */
import { createHash } from 'node:crypto';
import { assertArgument, checkInteger, throwIfAborted } from '@vramkit/core';
import { inParts } from './blob-body.js';
import type { BlobStore } from './blob-store.js';
import {
  dtypeSize,
  encodeHeader,
  HASHED_BYTES,
  sha256Of,
  type CheckpointTensor,
  type StoredShard,
} from './checkpoint-format.js';
import { orCode } from './expected-errors.js';
import { openXxh3 } from './xxh3.js';

/** One shard before it is stored. */
export interface PlannedShard {
  readonly header: Uint8Array;
  readonly tensors: readonly CheckpointTensor[];
}

/**
 * Tensors in the order given; a shard is closed once it has `shardBytes`.
 * @throws VramError `invalid-argument` where names, shapes, dtypes and bytes do not fit.
 */
export function planShards(
  tensors: Iterable<CheckpointTensor>,
  shardBytes: number,
): PlannedShard[] {
  const groups: CheckpointTensor[][] = [];
  let room = 0;
  for (const tensor of checkTensors(tensors)) {
    const group = room > 0 ? groups.at(-1) : undefined;
    if (group === undefined) {
      groups.push([tensor]);
      room = shardBytes;
    } else group.push(tensor);
    room -= tensor.bytes.length;
  }
  return groups.map((group) => ({
    header: encodeHeader(group),
    tensors: group,
  }));
}

function checkTensors(tensors: Iterable<CheckpointTensor>): CheckpointTensor[] {
  const all = [...tensors];
  const names = new Set(all.map(({ name }) => name));
  assertArgument(names.size === all.length, 'two tensors have one name');
  for (const { name, dtype, shape, bytes } of all) {
    assertArgument(name !== '__metadata__', "no tensor is named '__metadata__'");
    for (const extent of shape) checkInteger(`extent of tensor '${name}'`, extent);
    const elements = shape.reduce((product, extent) => product * extent, 1);
    const size = dtypeSize(dtype);
    assertArgument(size !== undefined, `tensor '${name}' has an unknown dtype '${dtype}'`);
    assertArgument(
      bytes.length === elements * size,
      `tensor '${name}' has ${bytes.length} B, its shape and dtype say ${elements * size}`,
      { name, sizeBytes: bytes.length },
    );
  }
  return all;
}

async function* contentOf({ header, tensors }: PlannedShard): AsyncGenerator<Uint8Array> {
  yield header;
  for (const { bytes } of tensors) yield bytes;
}

/** What a shard's blob will be. */
export async function hashShard(
  shard: PlannedShard,
  index: number,
  signal: AbortSignal | undefined,
): Promise<StoredShard> {
  const hash = createHash('sha256');
  const checksum = await openXxh3();
  const xxh3: string[] = [];
  let sizeBytes = 0;
  for await (const part of inParts(contentOf(shard), HASHED_BYTES)) {
    throwIfAborted(signal);
    hash.update(part);
    xxh3.push(checksum.hex(part));
    sizeBytes += part.length;
    // Hashing holds the thread: between two parts others have their turn, the writes of the shards
    // before this one among them.
    await new Promise((resolve) => setImmediate(resolve));
  }
  const sha256 = hash.digest('hex');
  const file = `model-${String(index + 1).padStart(5, '0')}-${sha256.slice(0, 16)}.safetensors`;
  return { file, sizeBytes, sha256, xxh3 };
}

/** Puts a shard into a folder unless its bytes are there: what is there is read and hashed. */
export async function storeShard(
  store: BlobStore,
  folder: string,
  shard: PlannedShard,
  { file, sizeBytes, sha256 }: StoredShard,
  signal: AbortSignal | undefined,
): Promise<void> {
  const key = folder + file;
  const there = sha256Of(store.get(key, { signal, lend: true }));
  // A conflict: somebody else puts the same shard just now.
  const found = await orCode(there, 'not-found', 'corrupt-data', 'conflict');
  if (found === sha256) return;
  const body = { [Symbol.asyncIterator]: () => contentOf(shard) };
  await store.put(key, body, { sizeBytes, signal });
}

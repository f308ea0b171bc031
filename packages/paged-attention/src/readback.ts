/**
 * Reads norms and stored K and V back to the host.
 *
 * A block's norms are contiguous, and so are its K and V in one layer: neighbouring blocks are one
 * read. Scattered blocks are first gathered on the device into a small kept range, so that a whole
 * prompt costs one wait for the device, and repeated reads create no buffers.
 */
import {
  Batch,
  f16ArrayToF32,
  fail,
  subrange,
  type BufferRange,
  type ReadOptions,
  type VramDevice,
} from '@vramkit/core';
import {
  keyElement,
  layerBlockBytes,
  layerBlockElements,
  normBlockBytes,
  tokenNorms,
  valueElement,
  type KvDType,
  type KvLayout,
} from './kv-layout.js';
import { segmentLayer } from './decode.js';
import type { KvSegment } from './kv-storage.js';

/** L2 norms of tokens, each `[tokens, layers, kvHeads]`. */
export interface TokenNorms {
  readonly keyNorm: Float32Array<ArrayBuffer>;
  readonly valueNorm: Float32Array<ArrayBuffer>;
}

/** Stored K and V of tokens, each `[tokens, kvHeads, headDim]`. */
export interface TokenKv {
  readonly keys: Float32Array<ArrayBuffer>;
  readonly values: Float32Array<ArrayBuffer>;
}

/** Blocks of one segment that follow each other. */
interface ReadRun {
  readonly range: BufferRange;
  readonly blocks: readonly number[];
}

/** Which bytes of each block are read. */
export interface BlockReads {
  /** Distinct, ascending. */
  readonly blocks: readonly number[];
  readonly blockBytes: number;
  /** The storage of a segment's blocks, `blockBytes` each. */
  readonly storage: (segment: KvSegment) => BufferRange;
}

/** The runs of neighbouring blocks, at most `most` long. */
function readRuns(reads: BlockReads, segments: readonly KvSegment[], most: number): ReadRun[] {
  const { blocks, blockBytes, storage } = reads;
  const runs: ReadRun[] = [];
  for (let first = 0; first < blocks.length;) {
    const block = blocks[first] ?? 0;
    const segment = segments.find((s) => block < s.firstBlock + s.blockCount);
    if (segment === undefined) break;
    const end = segment.firstBlock + segment.blockCount;
    let count = 1;
    while (count < most && blocks[first + count] === block + count && block + count < end) count++;
    const start = (block - segment.firstBlock) * blockBytes;
    runs.push({
      range: subrange(storage(segment), start, count * blockBytes),
      blocks: blocks.slice(first, first + count),
    });
    first += count;
  }
  return runs;
}

/**
 * Reads blocks, each as its bytes. `gather` holds at least one.
 */
export async function readBlocks(
  device: VramDevice,
  segments: readonly KvSegment[],
  reads: BlockReads,
  gather: BufferRange,
): Promise<Map<number, Uint8Array>> {
  const { blockBytes } = reads;
  const perGather = Math.floor(gather.sizeBytes / blockBytes);
  const result = new Map<number, Uint8Array>();
  const runs = readRuns(reads, segments, perGather);
  const take = async (
    range: BufferRange,
    ids: readonly number[],
    options?: ReadOptions,
  ): Promise<void> => {
    const bytes = await device.readback.read(range, options);
    ids.forEach((id, index) =>
      result.set(id, bytes.subarray(index * blockBytes, (index + 1) * blockBytes)),
    );
  };
  const only = runs[0];
  if (runs.length === 1 && only !== undefined) {
    await take(only.range, only.blocks);
    return result;
  }
  const pending: Promise<void>[] = [];
  let batch = new Batch(device, 'gather blocks');
  let ids: number[] = [];
  // A read at once submits its copies before it returns, so the range can be filled again right
  // after it.
  const flush = (): void => {
    batch.submit();
    pending.push(take(subrange(gather, 0, ids.length * blockBytes), ids, { atOnce: true }));
    batch = new Batch(device, 'gather blocks');
    ids = [];
  };
  for (const run of runs) {
    if (ids.length + run.blocks.length > perGather) flush();
    batch.copy(run.range, subrange(gather, ids.length * blockBytes));
    ids.push(...run.blocks);
  }
  if (ids.length > 0) flush();
  await Promise.all(pending);
  return result;
}

/** Norms of blocks, `[blockSize, layers, kvHeads, 2]` of each; see {@link readBlocks}. */
export async function readNormBlocks(
  device: VramDevice,
  layout: KvLayout,
  segments: readonly KvSegment[],
  blocks: readonly number[],
  gather: BufferRange,
): Promise<Map<number, Float32Array>> {
  const storage = (segment: KvSegment): BufferRange => segment.norms;
  const reads = { blocks, blockBytes: normBlockBytes(layout), storage };
  const read = await readBlocks(device, segments, reads, gather);
  return new Map(Array.from(read, ([id, bytes]) => [id, asFloats(bytes, 'f32')]));
}

/** Picks the norms of `slots` out of blocks read by {@link readNormBlocks}. */
export function pickNorms(
  layout: KvLayout,
  slots: ArrayLike<number>,
  blocks: ReadonlyMap<number, Float32Array>,
): TokenNorms {
  const perToken = tokenNorms(layout);
  const keyNorm = new Float32Array((slots.length * perToken) / 2);
  const valueNorm = new Float32Array((slots.length * perToken) / 2);
  for (let token = 0; token < slots.length; token++) {
    const slot = slots[token] ?? 0;
    const norms = blocks.get(Math.floor(slot / layout.blockSize));
    const from = (slot % layout.blockSize) * perToken;
    for (let i = 0; i < perToken / 2; i++) {
      keyNorm[(token * perToken) / 2 + i] = norms?.[from + 2 * i] ?? Number.NaN;
      valueNorm[(token * perToken) / 2 + i] = norms?.[from + 2 * i + 1] ?? Number.NaN;
    }
  }
  return { keyNorm, valueNorm };
}

/** Reads K and V of `slots` in one layer: blocks are read whole and cut on the host. */
export async function readTokens(
  device: VramDevice,
  layout: KvLayout,
  segments: readonly KvSegment[],
  of: {
    readonly layer: number;
    readonly slots: ArrayLike<number>;
    /** The blocks of the slots, ascending. */
    readonly blocks: readonly number[];
  },
  gather: BufferRange,
): Promise<TokenKv> {
  const { kvHeads, headDim, blockSize, dtype } = layout;
  const { layer, slots, blocks } = of;
  const keys = new Float32Array(slots.length * kvHeads * headDim);
  const values = new Float32Array(keys.length);
  const storage = (segment: KvSegment): BufferRange => segmentLayer(segment, layer);
  const reads = { blocks, blockBytes: layerBlockBytes(layout), storage };
  const read = await readBlocks(device, segments, reads, gather);
  const floats = new Map(Array.from(read, ([id, bytes]) => [id, asFloats(bytes, dtype)]));
  const perBlock = layerBlockElements(layout);
  for (let token = 0; token < slots.length; token++) {
    const slot = slots[token] ?? 0;
    const data = floats.get(Math.floor(slot / blockSize));
    if (data === undefined) fail('invariant', `the block of slot ${slot} was not read`, { slot });
    for (let head = 0; head < kvHeads; head++) {
      const to = (token * kvHeads + head) * headDim;
      // Four elements of a key, then those of the other tokens of the block; values by token.
      const key = keyElement(layout, slot, head, 0) % perBlock;
      for (let d = 0; d < headDim; d += 4) {
        for (let i = d; i < d + 4; i++) keys[to + i] = data[key + d * (blockSize - 1) + i] ?? NaN;
      }
      const value = valueElement(layout, slot, head, 0) % perBlock;
      values.set(data.subarray(value, value + headDim), to);
    }
  }
  return { keys, values };
}

function asFloats({ buffer, byteOffset, byteLength }: Uint8Array, dtype: KvDType): Float32Array {
  if (dtype === 'f32') return new Float32Array(buffer, byteOffset, byteLength / 4);
  return f16ArrayToF32(new Uint16Array(buffer, byteOffset, byteLength / 2));
}

/** `[tokens, layers, kvHeads]` of `[layers, capacity, kvHeads]`. */
export function byToken(
  values: Float32Array,
  shape: {
    readonly layers: number;
    readonly kvHeads: number;
    readonly tokens: number;
    readonly capacity: number;
  },
): Float32Array<ArrayBuffer> {
  const { layers, kvHeads, tokens, capacity } = shape;
  const result = new Float32Array(tokens * layers * kvHeads);
  for (let layer = 0; layer < layers; layer++) {
    for (let token = 0; token < tokens; token++) {
      const start = (layer * capacity + token) * kvHeads;
      result.set(values.subarray(start, start + kvHeads), (token * layers + layer) * kvHeads);
    }
  }
  return result;
}

/**
 * Reads norms and stored K and V back to the host.
 *
 * Norms of a block are contiguous: those of neighbouring blocks are one read. Norms of scattered
 * blocks are first gathered on the device into a small kept range, so that a whole prompt costs one
 * wait for the device, and repeated reads create no buffers.
 */
import { Batch, f16ToF32, subrange, type BufferRange, type VramDevice } from '@vramkit/core';
import {
  keyElement,
  layerBlockBytes,
  layerBlockElements,
  normBlockBytes,
  tokenNorms,
  valueElement,
  type KvLayout,
} from './kv-layout.js';
import type { KvSegment } from './kv-storage.js';

/** L2 norms of tokens, each `[tokens, layers, kvHeads]`. */
export interface TokenNorms {
  readonly keyNorm: Float32Array;
  readonly valueNorm: Float32Array;
}

/** Stored K and V of tokens, each `[tokens, kvHeads, headDim]`. */
export interface TokenKv {
  readonly keys: Float32Array;
  readonly values: Float32Array;
}

/** Blocks of one segment that follow each other. */
interface ReadRun {
  readonly range: BufferRange;
  readonly blocks: readonly number[];
}

/** The runs of neighbouring blocks in `blocks` (ascending, distinct), at most `most` long. */
function readRuns(
  blocks: readonly number[],
  segments: readonly KvSegment[],
  blockBytes: number,
  most: number,
): ReadRun[] {
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
      range: subrange(segment.norms, start, count * blockBytes),
      blocks: blocks.slice(first, first + count),
    });
    first += count;
  }
  return runs;
}

/**
 * Reads the norms of distinct ascending blocks; gives `[blockSize, layers, kvHeads, 2]` of each.
 */
export async function readNormBlocks(
  device: VramDevice,
  layout: KvLayout,
  segments: readonly KvSegment[],
  blocks: readonly number[],
  gather: BufferRange,
): Promise<Map<number, Float32Array>> {
  const blockBytes = normBlockBytes(layout);
  const perGather = Math.floor(gather.sizeBytes / blockBytes);
  const result = new Map<number, Float32Array>();
  const runs = readRuns(blocks, segments, blockBytes, perGather);
  const take = async (range: BufferRange, ids: readonly number[]): Promise<void> => {
    const bytes = await device.readback.read(range);
    const floats = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    const each = blockBytes / 4;
    ids.forEach((id, index) => result.set(id, floats.subarray(index * each, (index + 1) * each)));
  };
  const only = runs[0];
  if (runs.length === 1 && only !== undefined) {
    await take(only.range, only.blocks);
    return result;
  }
  const reads: Promise<void>[] = [];
  let batch = new Batch(device, 'gather norms');
  let ids: number[] = [];
  // A read submits its copy before it returns, so the range can be filled again right after it.
  const flush = (): void => {
    batch.submit();
    reads.push(take(subrange(gather, 0, ids.length * blockBytes), ids));
    batch = new Batch(device, 'gather norms');
    ids = [];
  };
  for (const run of runs) {
    if (ids.length + run.blocks.length > perGather) flush();
    batch.copy(run.range, subrange(gather, ids.length * blockBytes));
    ids.push(...run.blocks);
  }
  if (ids.length > 0) flush();
  await Promise.all(reads);
  return result;
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

/** Reads K and V of `slots` in one layer: a block is read whole and cut on the host. */
export async function readTokens(
  device: VramDevice,
  layout: KvLayout,
  segments: readonly KvSegment[],
  layer: number,
  slots: ArrayLike<number>,
): Promise<TokenKv> {
  const { kvHeads, headDim, blockSize } = layout;
  const keys = new Float32Array(slots.length * kvHeads * headDim);
  const values = new Float32Array(keys.length);
  const blocks = new Map<number, Float32Array>();
  for (const block of new Set(Array.from(slots, (slot) => Math.floor(slot / blockSize)))) {
    blocks.set(block, await readBlock(device, layout, segments, layer, block));
  }
  const perBlock = layerBlockElements(layout);
  for (let token = 0; token < slots.length; token++) {
    const slot = slots[token] ?? 0;
    const data = blocks.get(Math.floor(slot / blockSize));
    for (let head = 0; head < kvHeads; head++) {
      for (let d = 0; d < headDim; d++) {
        const to = (token * kvHeads + head) * headDim + d;
        keys[to] = data?.[keyElement(layout, slot, head, d) % perBlock] ?? Number.NaN;
        values[to] = data?.[valueElement(layout, slot, head, d) % perBlock] ?? Number.NaN;
      }
    }
  }
  return { keys, values };
}

async function readBlock(
  device: VramDevice,
  layout: KvLayout,
  segments: readonly KvSegment[],
  layer: number,
  block: number,
): Promise<Float32Array> {
  const segment = segments.find((s) => block < s.firstBlock + s.blockCount);
  const range = segment?.layers[layer];
  if (segment === undefined || range === undefined) return new Float32Array(0);
  const blockBytes = layerBlockBytes(layout);
  const start = (block - segment.firstBlock) * blockBytes;
  const bytes = await device.readback.read(subrange(range, start, blockBytes));
  const { buffer, byteOffset } = bytes;
  if (layout.dtype === 'f32') return new Float32Array(buffer, byteOffset, blockBytes / 4);
  return Float32Array.from(new Uint16Array(buffer, byteOffset, blockBytes / 2), f16ToF32);
}

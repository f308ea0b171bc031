/**
 * Means over blocks, reduced where the numbers are: 8 bytes of a block reach the host.
 */
import { fail, subrange, writeRange, type Batch, type BufferRange } from '@vramkit/core';
import type { VramDevice } from '@vramkit/core';
import { blockMeansKernel, type BlockStatistic } from './kernels/block-means.wgsl.js';
import { tokenNorms, type KvLayout } from './kv-layout.js';
import type { KvSegment } from './kv-storage.js';

/** A number per token, layer and KV head, made of the norms that a cache keeps. */
export interface NormMean {
  readonly statistic: 'keyNorm' | 'valueNorm' | 'valueOverKeyNorm';
  /** Smallest key norm that is divided by. */
  readonly epsilon: number;
}

/** Bytes of a binding are a multiple of this. */
const ALIGN = 256;

/** Ranges of one reduction. */
export interface MeanRanges {
  readonly blocks: BufferRange;
  readonly means: BufferRange;
  readonly count: number;
}

/** Bytes of {@link meanRanges}. */
export function meanBytes(count: number): number {
  return 3 * Math.ceil((count * 4) / ALIGN) * ALIGN;
}

/** Cuts a range of {@link meanBytes} into the list, which is written, and the means. */
export function meanRanges(
  device: VramDevice,
  range: BufferRange,
  blocks: Uint32Array,
): MeanRanges {
  const listBytes = meanBytes(blocks.length) / 3;
  const list = subrange(range, 0, listBytes);
  writeRange(device, list, blocks);
  const means = subrange(range, listBytes, 2 * listBytes);
  return { blocks: list, means, count: blocks.length };
}

/** Records means of the norms of blocks of a cache. */
export function recordNormMeans(
  batch: Batch,
  layout: KvLayout,
  segments: readonly KvSegment[],
  { blocks, means, count }: MeanRanges,
  { statistic, epsilon }: NormMean,
): void {
  const perLayer = (layout.blockSize * tokenNorms(layout)) / 2;
  for (const { norms, firstBlock, blockCount } of segments) {
    batch.dispatch(blockMeansKernel, {
      params: { statistic },
      bindings: { blocks, values: norms, means },
      uniforms: { count, firstBlock, blockCount, layers: 1, perLayer, layerStride: 0, epsilon },
      workgroups: count,
    });
  }
}

/** Records means of sums `[layers, capacity, kvHeads]` of a sequence; blocks count in it. */
export function recordSumMeans(
  batch: Batch,
  { layers, kvHeads, blockSize }: KvLayout,
  { blocks, means, count }: MeanRanges,
  sums: BufferRange,
): void {
  const statistic: BlockStatistic = 'sum';
  const perLayer = blockSize * kvHeads;
  const layerStride = sums.sizeBytes / 4 / layers;
  const blockCount = Math.floor(layerStride / perLayer);
  batch.dispatch(blockMeansKernel, {
    params: { statistic },
    bindings: { blocks, values: sums, means },
    uniforms: { count, firstBlock: 0, blockCount, layers, perLayer, layerStride, epsilon: 0 },
    workgroups: count,
  });
}

/**
 * The means, once the batch that records them was submitted.
 * @throws VramError `invalid-argument` where one, or a number behind it, is not finite;
 * `device-lost`.
 */
export async function readMeans(
  device: VramDevice,
  { means, count }: MeanRanges,
  blocks: Uint32Array,
): Promise<Float64Array<ArrayBuffer>> {
  const bytes = await device.readback.read(subrange(means, 0, count * 8), { atOnce: true });
  const read = new Float32Array(bytes.buffer, bytes.byteOffset, count * 2);
  const result = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const mean = read[2 * i] ?? NaN;
    const infinite = read[2 * i + 1] ?? 0;
    if (infinite > 0 || !Number.isFinite(mean)) {
      const block = blocks[i] ?? 0;
      const message = `${infinite} numbers of block ${block} are not finite; their mean is ${mean}`;
      fail('invalid-argument', message, { block, infinite });
    }
    result[i] = mean;
  }
  return result;
}

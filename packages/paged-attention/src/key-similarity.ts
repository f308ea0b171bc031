/**
 * Reads how alike the keys of some slots are: the cosine of each key with the sum of all their unit
 * keys, per layer and KV head.
 *
 * Nothing is kept between calls: a running sum would have to follow every write, move and eviction
 * of every fork, while a decision falls once per block, and then costs two passes over the keys of
 * one sequence.
 */
import { Batch, subrange, writeRange, type BufferRange, type VramDevice } from '@vramkit/core';
import type { AttentionScratch } from './attention-scratch.js';
import { meanBytes, meanRanges, readMeans, recordSumMeans } from './block-means.js';
import { segmentLayer } from './decode.js';
import {
  DIRECTION_LANES,
  DIRECTION_PART,
  keyDirectionKernel,
  keySimilarityKernel,
} from './kernels/key-direction.wgsl.js';
import type { KvLayout, KvShape } from './kv-layout.js';
import type { KvSegment } from './kv-storage.js';
import { byToken } from './readback.js';

/** What one call works on; slots are checked. */
interface SimilarityCall {
  readonly device: VramDevice;
  readonly layout: KvLayout;
  readonly segments: readonly KvSegment[];
  readonly slots: Uint32Array;
  readonly scratch: AttentionScratch;
}

/** Cosines of slots, `[slots, layers, kvHeads]`. */
export async function readKeySimilarity(call: SimilarityCall): Promise<Float32Array<ArrayBuffer>> {
  const { device, layout, slots } = call;
  const { layers, kvHeads } = layout;
  const batch = new Batch(device, 'key similarity');
  const { similarity, capacity } = recordAll(batch, call, 0);
  batch.submit();
  const bytes = await device.readback.read(similarity, { atOnce: true });
  const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  return byToken(values, { layers, kvHeads, tokens: slots.length, capacity });
}

/** Mean cosine of each whole block that the slots make up, `[floor(slots / blockSize)]`. */
export async function readKeySimilarityMeans(
  call: SimilarityCall,
): Promise<Float64Array<ArrayBuffer>> {
  const { device, layout, slots } = call;
  const count = Math.floor(slots.length / layout.blockSize);
  const blocks = Uint32Array.from({ length: count }, (_, i) => i);
  const batch = new Batch(device, 'key similarity of blocks');
  const { similarity, spare } = recordAll(batch, call, meanBytes(count));
  const ranges = meanRanges(device, spare, blocks);
  recordSumMeans(batch, layout, ranges, similarity);
  batch.submit();
  return readMeans(device, ranges, blocks);
}

/** Records all layers; the cosines are `[layers, capacity, kvHeads]`. */
function recordAll(
  batch: Batch,
  { device, layout, segments, slots, scratch }: SimilarityCall,
  spareBytes: number,
): { readonly similarity: BufferRange; readonly capacity: number; readonly spare: BufferRange } {
  const { layers, kvHeads, headDim } = layout;
  const tokens = slots.length;
  const parts = Math.ceil(tokens / DIRECTION_PART);
  // Room for whole parts keeps every range at a multiple of 1 KiB.
  const capacity = parts * DIRECTION_PART;
  const listBytes = capacity * 4;
  const sumBytes = Math.ceil((parts * kvHeads * headDim) / 64) * 256;
  const layerBytes = capacity * kvHeads * 4;
  const range = scratch.reserve(listBytes + sumBytes + layers * layerBytes + spareBytes);
  const list = subrange(range, 0, listBytes);
  writeRange(device, list, slots);
  const ranges = { slots: list, sums: subrange(range, listBytes, sumBytes) };
  const all = subrange(range, listBytes + sumBytes, layers * layerBytes);
  for (let layer = 0; layer < layers; layer++) {
    const similarity = subrange(all, layer * layerBytes, layerBytes);
    recordLayer(batch, layout, segments, layer, { ...ranges, similarity, tokens });
  }
  const spare = subrange(range, listBytes + sumBytes + layers * layerBytes, spareBytes);
  return { similarity: all, capacity, spare };
}

function recordLayer(
  batch: Batch,
  layout: KvLayout,
  segments: readonly KvSegment[],
  layer: number,
  of: {
    readonly slots: BufferRange;
    readonly sums: BufferRange;
    readonly similarity: BufferRange;
    readonly tokens: number;
  },
): void {
  const { dtype, kvHeads, headDim, blockSize } = layout;
  const shape: KvShape = { dtype, kvHeads, headDim, blockSize };
  const { slots, sums, similarity, tokens } = of;
  const parts = Math.ceil(tokens / DIRECTION_PART);
  const part = (segment: KvSegment) => ({
    bindings: { slots, kv: segmentLayer(segment, layer), sums },
    uniforms: { tokens, firstBlock: segment.firstBlock, blockCount: segment.blockCount, one: 1 },
  });
  segments.forEach((segment, index) => {
    const { bindings, uniforms } = part(segment);
    batch.dispatch(keyDirectionKernel, {
      params: { shape },
      bindings,
      uniforms: { ...uniforms, isFirst: index === 0 ? 1 : 0 },
      workgroups: parts * kvHeads,
    });
  });
  for (const segment of segments) {
    const { bindings, uniforms } = part(segment);
    batch.dispatch(keySimilarityKernel, {
      params: { shape },
      bindings: { ...bindings, similarity },
      uniforms: { ...uniforms, parts },
      workgroups: Math.ceil(tokens / DIRECTION_LANES) * kvHeads,
    });
  }
}

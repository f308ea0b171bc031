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

/** Cosines of checked slots, `[slots, layers, kvHeads]`. */
export async function readKeySimilarity(
  device: VramDevice,
  layout: KvLayout,
  segments: readonly KvSegment[],
  slots: Uint32Array,
  scratch: AttentionScratch,
): Promise<Float32Array> {
  const { layers, kvHeads, headDim } = layout;
  const tokens = slots.length;
  const parts = Math.ceil(tokens / DIRECTION_PART);
  // Room for whole parts keeps every range at a multiple of 1 KiB.
  const capacity = parts * DIRECTION_PART;
  const listBytes = capacity * 4;
  const sumBytes = Math.ceil((parts * kvHeads * headDim) / 64) * 256;
  const layerBytes = capacity * kvHeads * 4;
  const range = scratch.reserve(listBytes + sumBytes + layers * layerBytes);
  const list = subrange(range, 0, listBytes);
  writeRange(device, list, slots);
  const ranges = { slots: list, sums: subrange(range, listBytes, sumBytes) };
  const result = subrange(range, listBytes + sumBytes, layers * layerBytes);
  const batch = new Batch(device, 'key similarity');
  for (let layer = 0; layer < layers; layer++) {
    const similarity = subrange(result, layer * layerBytes, layerBytes);
    recordLayer(batch, layout, segments, layer, { ...ranges, similarity, tokens });
  }
  batch.submit();
  const bytes = await device.readback.read(result);
  const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  return byToken(values, { layers, kvHeads, tokens, capacity });
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

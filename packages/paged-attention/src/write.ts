/**
 * Records the write of a step's K and V: one dispatch per segment, each taking the tokens whose
 * slots are its own. Rows beyond one binding are written in several passes.
 */
import { type Batch, type BufferRange, type DeviceLimits } from '@vramkit/core';
import { segmentLayer } from './decode.js';
import { WRITE_KV_LANES, writeKvKernel } from './kernels/write-kv.wgsl.js';
import type { KvLayout, KvShape } from './kv-layout.js';
import type { KvSegment } from './kv-storage.js';
import { bindableRows, rowsPerBinding, type StridedRows } from './strided-rows.js';

/** K and V of a step's tokens; see `PagedKvCache.writeKv`. */
export interface WriteRequest {
  readonly layer: number;
  /** One row of `kvHeads * headDim` per token. */
  readonly keys: StridedRows;
  /** One row of `kvHeads * headDim` per token. */
  readonly values: StridedRows;
  /** u32 `[tokens]`: block id * blockSize + offset; 0xffffffff skips the token. */
  readonly slots: BufferRange;
  readonly tokens: number;
}

/** Records the dispatches of a checked request. */
export function recordWrite(
  batch: Batch,
  limits: DeviceLimits,
  layout: KvLayout,
  segments: readonly KvSegment[],
  request: WriteRequest,
): void {
  const { dtype, kvHeads, headDim, blockSize, layers } = layout;
  const shape: KvShape = { dtype, kvHeads, headDim, blockSize };
  const { tokens, slots, layer } = request;
  const step = rowsPerBinding(limits, [request.keys, request.values], tokens);
  for (let first = 0; first < tokens; first += step) {
    const count = Math.min(step, tokens - first);
    const keys = bindableRows(limits, request.keys, first, count);
    const values = bindableRows(limits, request.values, first, count);
    for (const segment of segments) {
      batch.dispatch(writeKvKernel, {
        params: { shape },
        bindings: {
          keys: keys.range,
          values: values.range,
          slots,
          kv: segmentLayer(segment, layer),
          norms: segment.norms,
        },
        uniforms: {
          tokens: count,
          firstToken: first,
          layer,
          layers,
          one: 1,
          keyOffset: keys.offset,
          keyStride: keys.rowStride,
          valueOffset: values.offset,
          valueStride: values.rowStride,
          firstBlock: segment.firstBlock,
          blockCount: segment.blockCount,
        },
        workgroups: Math.ceil((count * kvHeads * 2) / WRITE_KV_LANES),
      });
    }
  }
}

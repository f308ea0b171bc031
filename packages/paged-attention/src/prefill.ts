/**
 * Records the prefill attention: one dispatch per segment, each going on from the one before.
 */
import { type Batch, type BufferRange, type DeviceLimits } from '@vramkit/core';
import { segmentLayer } from './decode.js';
import { PREFILL_ROWS, prefillAttentionKernel } from './kernels/prefill-attention.wgsl.js';
import type { KvShape } from './kv-layout.js';
import type { KvSegment } from './kv-storage.js';
import { bindableRows, rowsPerBinding, type StridedRows } from './strided-rows.js';

/** A chunk of one sequence's prompt in one layer; see `PagedKvCache.prefillAttention`. */
export interface PrefillRequest {
  readonly layer: number;
  /** One row of `heads * headDim` per token. */
  readonly queries: StridedRows;
  /** Query heads; a multiple of the cache's KV heads. */
  readonly heads: number;
  /** u32: block ids of the sequence in logical order, the new tokens' blocks included. */
  readonly blockTable: BufferRange;
  /** Query tokens; their K and V are already written. */
  readonly tokens: number;
  /** Slots cached before the first of them: query i sees slots 0 .. contextLength + i. */
  readonly contextLength: number;
  /** One row of `heads * headDim` per token. */
  readonly output: StridedRows;
  /** Factor of the logits. Default: 1 / sqrt(headDim). */
  readonly scale?: number;
}

/** Scratch that a prefill over `segmentCount` segments needs, bytes. */
export function prefillScratchBytes(
  request: { readonly tokens: number; readonly heads: number },
  segmentCount: number,
): number {
  return segmentCount === 1 ? 8 : request.tokens * request.heads * 8;
}

/** Records the dispatches of a checked request; queries beyond one binding go in several passes. */
export function recordPrefill(
  batch: Batch,
  limits: DeviceLimits,
  shape: KvShape,
  segments: readonly KvSegment[],
  request: PrefillRequest,
  states: BufferRange,
): void {
  const { tokens, contextLength } = request;
  const step = rowsPerBinding(limits, [request.queries, request.output], tokens);
  for (let first = 0; first < tokens; first += step) {
    const count = Math.min(step, tokens - first);
    const part = {
      ...request,
      tokens: count,
      contextLength: contextLength + first,
      queries: bindableRows(limits, request.queries, first, count),
      output: bindableRows(limits, request.output, first, count),
    };
    recordChunk(batch, shape, segments, part, states);
  }
}

function recordChunk(
  batch: Batch,
  shape: KvShape,
  segments: readonly KvSegment[],
  request: PrefillRequest,
  states: BufferRange,
): void {
  const { queries, output, heads, tokens } = request;
  const rows = (tokens * heads) / shape.kvHeads;
  segments.forEach((segment, index) => {
    batch.dispatch(prefillAttentionKernel, {
      params: { shape, segmented: segments.length > 1 },
      bindings: {
        queries: queries.range,
        kv: segmentLayer(segment, request.layer),
        blockTable: request.blockTable,
        states,
        output: output.range,
      },
      uniforms: {
        tokens,
        heads,
        one: 1,
        contextLength: request.contextLength,
        firstBlock: segment.firstBlock,
        blockCount: segment.blockCount,
        queryOffset: queries.offset,
        queryStride: queries.rowStride,
        outputOffset: output.offset,
        outputStride: output.rowStride,
        isFirst: index === 0 ? 1 : 0,
        isLast: index === segments.length - 1 ? 1 : 0,
        scale: request.scale ?? 1 / Math.sqrt(shape.headDim),
      },
      workgroups: Math.ceil(rows / PREFILL_ROWS) * shape.kvHeads,
    });
  });
}

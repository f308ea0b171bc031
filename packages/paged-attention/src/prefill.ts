/**
 * Records the prefill attention: one dispatch per segment, each going on from the one before.
 */
import { type Batch, type BufferRange, type DeviceLimits } from '@vramkit/core';
import type { AttentionScratch } from './attention-scratch.js';
import { segmentLayer } from './decode.js';
import {
  PREFILL_ROWS,
  PREFILL_TILE,
  prefillAttentionKernel,
  prefillAttentionLogitsKernel,
} from './kernels/prefill-attention.wgsl.js';
import type { KvShape } from './kv-layout.js';
import type { KvSegment } from './kv-storage.js';
import {
  recordReceived,
  reserveLogits,
  type LogitScratch,
  type PrefillReceived,
} from './received-attention.js';
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
  /** Sums of the attention that tokens receive, to add these queries to. Default: none. */
  readonly received?: readonly PrefillReceived[];
}

/** Most bytes of logits at once; more queries go in several passes. */
const LOGIT_BYTES = 16 * 1024 * 1024;

/** Scratch that a prefill over `segmentCount` segments needs, bytes. */
export function prefillScratchBytes(
  request: { readonly tokens: number; readonly heads: number },
  segmentCount: number,
): number {
  return segmentCount === 1 ? 8 : request.tokens * request.heads * 8;
}

/** What a prefill is recorded with. */
export interface PrefillTarget {
  readonly batch: Batch;
  readonly limits: DeviceLimits;
  readonly shape: KvShape;
  readonly segments: readonly KvSegment[];
  /** Running maximum and sum of each row between segments. */
  readonly states: BufferRange;
  /** Where logits go, taken where sums are asked for. */
  readonly logitScratch: AttentionScratch;
}

/**
 * Records the dispatches of a checked request. Queries beyond one binding go in several passes; so
 * do those whose weights are added up, and those before them.
 */
export function recordPrefill(target: PrefillTarget, request: PrefillRequest): void {
  const { limits } = target;
  const { tokens, contextLength, heads, received = [] } = request;
  const firstCounted = received.reduce((least, each) => Math.min(least, each.firstQuery), tokens);
  const bindable = rowsPerBinding(limits, [request.queries, request.output], tokens);
  const logitStride = Math.ceil((contextLength + tokens) / PREFILL_TILE) * PREFILL_TILE;
  const mostBytes = Math.min(LOGIT_BYTES, limits.maxStorageBufferBindingSize);
  const countable = Math.max(1, Math.floor(mostBytes / (heads * logitStride * 4)));
  for (let first = 0; first < tokens;) {
    const isCounted = first >= firstCounted;
    const end = isCounted ? tokens : firstCounted;
    const step = isCounted ? Math.min(bindable, countable) : bindable;
    const count = Math.min(step, end - first);
    const part = {
      ...request,
      tokens: count,
      contextLength: contextLength + first,
      queries: bindableRows(limits, request.queries, first, count),
      output: bindableRows(limits, request.output, first, count),
    };
    if (isCounted) recordCounted(target, part, { first, logitStride });
    else recordChunk(target, part, undefined);
    first += count;
  }
}

/** A pass whose weights are added up; its queries are `first` and up of the whole call. */
function recordCounted(
  target: PrefillTarget,
  part: PrefillRequest,
  { first, logitStride }: { readonly first: number; readonly logitStride: number },
): void {
  const { batch, limits, shape, logitScratch } = target;
  const { heads, tokens, contextLength } = part;
  const scratch = reserveLogits(logitScratch, limits, tokens * heads, logitStride);
  recordChunk(target, part, { ...scratch, logitStride });
  for (const { sums, firstQuery } of part.received ?? []) {
    if (firstQuery >= first + tokens) continue;
    recordReceived(batch, scratch, sums, {
      ...{ kvHeads: shape.kvHeads, heads, queries: tokens, firstRow: 0 },
      ...{ firstQuery: Math.max(0, firstQuery - first), contextLength, logitStride },
    });
  }
}

function recordChunk(
  { batch, shape, segments, states }: PrefillTarget,
  request: PrefillRequest,
  scratch: (LogitScratch & { readonly logitStride: number }) | undefined,
): void {
  const { queries, output, heads, tokens } = request;
  const rows = (tokens * heads) / shape.kvHeads;
  segments.forEach((segment, index) => {
    const params = { shape, segmented: segments.length > 1 };
    const bindings = {
      queries: queries.range,
      kv: segmentLayer(segment, request.layer),
      blockTable: request.blockTable,
      states: scratch?.states ?? states,
      output: output.range,
    };
    const uniforms = {
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
    };
    const workgroups = Math.ceil(rows / PREFILL_ROWS) * shape.kvHeads;
    if (scratch === undefined) {
      batch.dispatch(prefillAttentionKernel, { params, bindings, uniforms, workgroups });
    } else {
      batch.dispatch(prefillAttentionLogitsKernel, {
        params,
        bindings: { ...bindings, logits: scratch.logits },
        uniforms: { ...uniforms, logitVectors: scratch.logitStride / 4 },
        workgroups,
      });
    }
  });
}

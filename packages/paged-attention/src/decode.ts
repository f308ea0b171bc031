/**
 * Plans and records the decode attention: how many partitions, one dispatch per segment, and the
 * merge where there is something to merge.
 *
 * A partition is at least {@link MIN_PARTITION_TOKENS} long. More partitions mean more workgroups
 * for one long sequence; with many sequences there are enough without, so their count is capped by
 * the workgroups that exist anyway. Scratch is sized by that cap, not by the length: a growing
 * sequence crosses partition boundaries without an allocation.
 */
import { type Batch, type BufferRange } from '@vramkit/core';
import {
  DECODE_MAX_HEADS,
  DECODE_TILE,
  decodeAttentionKernel,
  decodeAttentionLogitsKernel,
} from './kernels/decode-attention.wgsl.js';
import {
  MERGE_LANES,
  mergePartialsKernel,
  mergePartialsStatesKernel,
} from './kernels/merge-partials.wgsl.js';
import type { KvShape } from './kv-layout.js';
import type { KvSegment } from './kv-storage.js';
import { recordReceived, type DecodeReceived, type LogitScratch } from './received-attention.js';
import type { StridedRows } from './strided-rows.js';

/** A decode step of one layer; see `PagedKvCache.decodeAttention`. */
export interface DecodeRequest {
  readonly layer: number;
  /** One row of `heads * headDim` per sequence. */
  readonly queries: StridedRows;
  /** Query heads; a multiple of the cache's KV heads. */
  readonly heads: number;
  /** u32 `[sequences, tableStride]`: block ids in logical order. */
  readonly blockTables: BufferRange;
  /** Entries of a row of `blockTables`. */
  readonly tableStride: number;
  /** u32 `[sequences]`: cached slots of each sequence, at most `maxLength`. */
  readonly lengths: BufferRange;
  readonly sequences: number;
  /** At least the largest of `lengths`: slots behind it are not read. Sets the grid. */
  readonly maxLength: number;
  /** One row of `heads * headDim` per sequence. */
  readonly output: StridedRows;
  /** Factor of the logits. Default: 1 / sqrt(headDim). */
  readonly scale?: number;
  /** Sums of the attention that tokens receive, to add this step to. Default: none. */
  readonly received?: readonly DecodeReceived[];
}

/** How a decode is split. */
export interface DecodePlan {
  /** Query heads of a workgroup. */
  readonly headsPerWorkgroup: number;
  /** Parts of each sequence. */
  readonly partitions: number;
  /** Tokens of a partition. */
  readonly partitionTokens: number;
  /** Bytes of partial results at the most partitions that this shape can get. */
  readonly scratchBytes: number;
}

/** Shortest partition, tokens: one tile of the kernel. */
export const MIN_PARTITION_TOKENS = DECODE_TILE;
/** Workgroups beyond which more partitions do not fill a GPU better. */
const ENOUGH_WORKGROUPS = 512;
const MAX_PARTITIONS = 64;

/** The largest divisor of `ratio` that one workgroup serves. */
function headsPerWorkgroup(ratio: number): number {
  for (let heads = DECODE_MAX_HEADS; heads > 1; heads--) if (ratio % heads === 0) return heads;
  return 1;
}

/** Splits a decode. Pure. */
export function planDecode(
  shape: KvShape,
  request: { readonly heads: number; readonly sequences: number; readonly maxLength: number },
): DecodePlan {
  const { heads, sequences, maxLength } = request;
  const perWorkgroup = headsPerWorkgroup(heads / shape.kvHeads);
  const workgroups = Math.max(1, (sequences * heads) / perWorkgroup);
  const most = Math.max(1, Math.min(MAX_PARTITIONS, Math.floor(ENOUGH_WORKGROUPS / workgroups)));
  const wanted = Math.min(most, Math.ceil(maxLength / MIN_PARTITION_TOKENS));
  const tokens = Math.ceil(maxLength / Math.max(1, wanted));
  const partitionTokens = Math.max(1, Math.ceil(tokens / DECODE_TILE)) * DECODE_TILE;
  return {
    headsPerWorkgroup: perWorkgroup,
    partitions: Math.max(1, Math.ceil(maxLength / partitionTokens)),
    partitionTokens,
    scratchBytes: sequences * heads * most * (shape.headDim / 4 + 1) * 16,
  };
}

/** Scratch of a decode. */
export interface DecodeScratch {
  /** Partial results, {@link DecodePlan.scratchBytes}. */
  readonly partials: BufferRange;
  /** Where logits go; absent where no sums are asked for. */
  readonly logits: LogitScratch | undefined;
}

/** Records the dispatches of a checked request. */
export function recordDecode(
  batch: Batch,
  shape: KvShape,
  segments: readonly KvSegment[],
  request: DecodeRequest,
  { partials, logits }: DecodeScratch,
  plan: DecodePlan,
): void {
  const { queries, output, heads, sequences } = request;
  const isDirect = plan.partitions === 1 && segments.length === 1 && logits === undefined;
  const { partitions, partitionTokens } = plan;
  const logitStride = logitRowLength(shape, request);
  segments.forEach((segment, index) => {
    const bindings = {
      queries: queries.range,
      kv: segmentLayer(segment, request.layer),
      blockTables: request.blockTables,
      lengths: request.lengths,
      partials,
      output: output.range,
    };
    const uniforms = {
      sequences,
      heads,
      one: 1,
      tableStride: request.tableStride,
      partitions,
      partitionTokens,
      firstBlock: segment.firstBlock,
      blockCount: segment.blockCount,
      queryOffset: queries.offset,
      queryStride: queries.rowStride,
      outputOffset: output.offset,
      outputStride: output.rowStride,
      isFirst: index === 0 ? 1 : 0,
      isDirect: isDirect ? 1 : 0,
      scale: request.scale ?? 1 / Math.sqrt(shape.headDim),
    };
    const params = { shape, headsPerWorkgroup: plan.headsPerWorkgroup };
    const workgroups = (sequences * heads * partitions) / plan.headsPerWorkgroup;
    if (logits === undefined) {
      batch.dispatch(decodeAttentionKernel, { params, bindings, uniforms, workgroups });
    } else {
      batch.dispatch(decodeAttentionLogitsKernel, {
        params,
        bindings: { ...bindings, logits: logits.logits },
        uniforms: { ...uniforms, logitStride },
        workgroups,
      });
    }
  });
  const rows = sequences * heads;
  if (!isDirect) recordMerge(batch, shape, request, { partials, logits }, partitions, rows);
  if (logits === undefined) return;
  for (const { sums, sequence, length } of request.received ?? []) {
    recordReceived(batch, logits, sums, {
      ...{ kvHeads: shape.kvHeads, heads, queries: 1, firstQuery: 0 },
      ...{ firstRow: sequence * heads, contextLength: length - 1, logitStride },
    });
  }
}

/** Logits of a row of a decode: room for every slot that a table can name. */
export function logitRowLength(shape: KvShape, request: { readonly tableStride: number }): number {
  return request.tableStride * shape.blockSize;
}

/** Records the merge of `rows` rows; with none it only compiles and binds. */
export function recordMerge(
  batch: Batch,
  shape: KvShape,
  request: Pick<DecodeRequest, 'heads' | 'output'>,
  { partials, logits }: DecodeScratch,
  partitions: number,
  rows: number,
): void {
  const { output, heads } = request;
  const params = { headDim: shape.headDim };
  const bindings = { partials, output: output.range };
  const uniforms = {
    rows,
    heads,
    partitions,
    outputOffset: output.offset,
    outputStride: output.rowStride,
  };
  const workgroups = Math.max(1, Math.ceil((rows * shape.headDim) / 4 / MERGE_LANES));
  if (logits === undefined) {
    batch.dispatch(mergePartialsKernel, { params, bindings, uniforms, workgroups });
  } else {
    const states = { ...bindings, states: logits.states };
    batch.dispatch(mergePartialsStatesKernel, { params, bindings: states, uniforms, workgroups });
  }
}

/** Storage of a layer in a segment; the layer was checked. */
export function segmentLayer(segment: KvSegment, layer: number): BufferRange {
  // A bounds-checked index: the type cannot say so.
  return segment.layers[layer] as BufferRange;
}

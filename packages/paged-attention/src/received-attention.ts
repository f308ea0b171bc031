/**
 * Attention that cached tokens receive: what a call may ask for, and how it is added up.
 *
 * The attention kernels leave their logits in scratch, and a small kernel turns them into weights
 * and adds those to sums of the caller. Keys are read once. A call that asks for nothing takes
 * other kernels, which know nothing of it.
 */
import {
  checkInteger,
  subrange,
  type Batch,
  type BufferRange,
  type DeviceLimits,
} from '@vramkit/core';
import type { AttentionScratch } from './attention-scratch.js';
import { RECEIVE_LANES, receiveAttentionKernel } from './kernels/receive-attention.wgsl.js';
import { checkWords } from './strided-rows.js';

/** Sums that the queries of one prefill call are added to. */
export interface PrefillReceived {
  /**
   * f32 `[tokens, kvHeads]` of one layer, tokens in the order of the block table: the weight that
   * each received, averaged over the query heads of a KV head, is added.
   */
  readonly sums: BufferRange;
  /** First query of the call that counts. */
  readonly firstQuery: number;
}

/** Sums that the query of one sequence of a decode call is added to. */
export interface DecodeReceived {
  /** As {@link PrefillReceived.sums}. */
  readonly sums: BufferRange;
  /** Index of the sequence in the call. */
  readonly sequence: number;
  /** Its cached slots, as in `lengths`. */
  readonly length: number;
}

/** Where a call leaves logits and the maximum and sum of each row. */
export interface LogitScratch {
  /** f32 `[rows, stride]`. */
  readonly logits: BufferRange;
  /** `[rows]` of two f32. */
  readonly states: BufferRange;
}

/**
 * Checks the sums of a call.
 * @throws VramError `invalid-argument` naming what does not fit.
 */
export function checkReceived(
  name: string,
  { sums }: { readonly sums: BufferRange },
  tokens: number,
  kvHeads: number,
): void {
  checkInteger(`tokens of ${name}`, tokens, 1);
  checkWords(`sums of ${name}`, sums, tokens * kvHeads, 'f32');
}

/**
 * Scratch for `rows` rows of `stride` logits. Calls of the same `rows` find the same ranges, and so
 * their bind groups, until a longer stride needs more than was taken.
 */
export function reserveLogits(
  scratch: AttentionScratch,
  limits: DeviceLimits,
  rows: number,
  stride: number,
): LogitScratch {
  const { minStorageBufferOffsetAlignment: alignment } = limits;
  const stateBytes = Math.ceil((rows * 8) / alignment) * alignment;
  const range = scratch.reserve(stateBytes + rows * stride * 4);
  return { states: subrange(range, 0, stateBytes), logits: subrange(range, stateBytes) };
}

/** What {@link recordReceived} adds up. */
export interface ReceivedQueries {
  readonly kvHeads: number;
  readonly heads: number;
  readonly queries: number;
  readonly firstQuery: number;
  /** Row of the first query's first head. */
  readonly firstRow: number;
  readonly contextLength: number;
  readonly logitStride: number;
}

/** Adds the weights of logits that were left to `sums`. */
export function recordReceived(
  batch: Batch,
  scratch: LogitScratch,
  sums: BufferRange,
  { kvHeads, ...uniforms }: ReceivedQueries,
): void {
  const tokens = uniforms.contextLength + uniforms.queries;
  batch.dispatch(receiveAttentionKernel, {
    params: { kvHeads },
    bindings: { ...scratch, sums },
    uniforms,
    workgroups: Math.ceil((tokens * kvHeads) / RECEIVE_LANES),
  });
}

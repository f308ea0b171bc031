/**
 * Records block copies and slot moves over all layers and segments.
 *
 * Copies run as if one after the other: dispatches of a batch are ordered, so a run of pairs ends
 * where the next pair touches a block of an earlier one, and the next dispatch takes it up.
 */
import { type Batch, type BufferRange } from '@vramkit/core';
import {
  COPIES_PER_DISPATCH,
  COPY_LANES,
  copyBlocksAcrossKernel,
  copyBlocksKernel,
} from './kernels/copy-blocks.wgsl.js';
import {
  MOVE_LANES,
  moveKvAcrossKernel,
  moveKvKernel,
  moveNormsAcrossKernel,
  moveNormsKernel,
} from './kernels/move-slots.wgsl.js';
import { layerBlockBytes, normBlockBytes, tokenNorms, type KvLayout } from './kv-layout.js';
import type { KvSegment } from './kv-storage.js';

/** A whole block's K, V and norms go from one block to another. */
export interface BlockPair {
  readonly from: number;
  readonly to: number;
}

/** Tokens that go from slot to slot; see `PagedKvCache.moveSlots`. */
export interface SlotMoves {
  /** u32 `[count]`: slots to read. */
  readonly from: BufferRange;
  /** u32 `[count]`: slots to write; none of them is in `from`. */
  readonly to: BufferRange;
  readonly count: number;
}

/**
 * Groups copies into runs whose order does not matter: within a run, no block is written twice, and
 * none is both read and written. Runs keep the order of the list, and hold at most
 * COPIES_PER_DISPATCH pairs. A copy of a block to itself is dropped. Pure.
 */
export function planCopies(copies: readonly BlockPair[]): BlockPair[][] {
  const runs: BlockPair[][] = [];
  let run: BlockPair[] = [];
  const read = new Set<number>();
  const written = new Set<number>();
  for (const pair of copies) {
    if (pair.from === pair.to) continue;
    const conflict = written.has(pair.from) || written.has(pair.to) || read.has(pair.to);
    if (run.length > 0 && (conflict || run.length === COPIES_PER_DISPATCH)) {
      runs.push(run);
      run = [];
      read.clear();
      written.clear();
    }
    run.push(pair);
    read.add(pair.from);
    written.add(pair.to);
  }
  if (run.length > 0) runs.push(run);
  return runs;
}

/** Calls `visit` for every pair of segments. */
function eachPair(
  segments: readonly KvSegment[],
  visit: (from: KvSegment, to: KvSegment) => void,
): void {
  for (const from of segments) for (const to of segments) visit(from, to);
}

function holds(segment: KvSegment, block: number): boolean {
  return block >= segment.firstBlock && block < segment.firstBlock + segment.blockCount;
}

function copyUniforms(
  pairs: readonly BlockPair[],
  from: KvSegment,
  to: KvSegment,
  blockBytes: number,
): { count: number; blockVectors: number } & Record<string, number> {
  const uniforms: Record<string, number> = {};
  for (let index = 0; index < COPIES_PER_DISPATCH; index++) {
    const pair = pairs[index];
    uniforms[`from${index}`] = pair === undefined ? 0 : pair.from - from.firstBlock;
    uniforms[`to${index}`] = pair === undefined ? 0 : pair.to - to.firstBlock;
  }
  return { ...uniforms, count: pairs.length, blockVectors: blockBytes / 16 };
}

function recordCopy(
  batch: Batch,
  source: BufferRange,
  data: BufferRange,
  uniforms: ReturnType<typeof copyUniforms>,
): void {
  const workgroups = Math.ceil((uniforms.count * uniforms.blockVectors) / COPY_LANES);
  const params = {};
  if (source === data) {
    batch.dispatch(copyBlocksKernel, { params, bindings: { data }, uniforms, workgroups });
  } else {
    const bindings = { source, data };
    batch.dispatch(copyBlocksAcrossKernel, { params, bindings, uniforms, workgroups });
  }
}

/** Records checked copies. */
export function recordCopies(
  batch: Batch,
  layout: KvLayout,
  segments: readonly KvSegment[],
  copies: readonly BlockPair[],
): void {
  for (const run of planCopies(copies)) {
    eachPair(segments, (from, to) => {
      const pairs = run.filter((pair) => holds(from, pair.from) && holds(to, pair.to));
      if (pairs.length === 0) return;
      const kv = copyUniforms(pairs, from, to, layerBlockBytes(layout));
      from.layers.forEach((source, layer) => {
        const target = to.layers[layer];
        if (target !== undefined) recordCopy(batch, source, target, kv);
      });
      const norms = copyUniforms(pairs, from, to, normBlockBytes(layout));
      recordCopy(batch, from.norms, to.norms, norms);
    });
  }
}

/** Records checked moves. */
export function recordMoves(
  batch: Batch,
  layout: KvLayout,
  segments: readonly KvSegment[],
  moves: SlotMoves,
): void {
  const { dtype, kvHeads, headDim, blockSize } = layout;
  const shape = { dtype, kvHeads, headDim, blockSize };
  const lists = { fromSlots: moves.from, toSlots: moves.to };
  const kvGroups = Math.ceil((moves.count * kvHeads * headDim) / 2 / MOVE_LANES);
  const perToken = tokenNorms(layout);
  const normGroups = Math.ceil((moves.count * perToken) / MOVE_LANES);
  eachPair(segments, (from, to) => {
    const uniforms = {
      count: moves.count,
      fromFirstBlock: from.firstBlock,
      fromBlockCount: from.blockCount,
      toFirstBlock: to.firstBlock,
      toBlockCount: to.blockCount,
    };
    const kv = { params: { shape }, uniforms, workgroups: kvGroups };
    to.layers.forEach((target, layer) => {
      const source = from.layers[layer];
      if (from === to || source === undefined) {
        batch.dispatch(moveKvKernel, { ...kv, bindings: { ...lists, kv: target } });
      } else {
        batch.dispatch(moveKvAcrossKernel, { ...kv, bindings: { ...lists, source, kv: target } });
      }
    });
    const norms = { params: { blockSize, perToken }, uniforms, workgroups: normGroups };
    if (from === to) {
      batch.dispatch(moveNormsKernel, { ...norms, bindings: { ...lists, norms: to.norms } });
    } else {
      const bindings = { ...lists, source: from.norms, norms: to.norms };
      batch.dispatch(moveNormsAcrossKernel, { ...norms, bindings });
    }
  });
}

/**
 * Records products whose weights each row chooses by an id on the device: mixture of experts.
 */
import { assertArgument, checkInteger, type Batch, type BufferRange } from '@vramkit/core';
import { bindingWindow, rowsPerDispatch } from './binding-window.js';
import { laneIndexedKernel, laneMappedKernel } from './kernels/matmul-lanes.wgsl.js';
import {
  splitIndexedKernel,
  splitMappedKernel,
  splitOutputs,
  splitsFor,
} from './kernels/matmul-split.wgsl.js';
import type { INDEXED_BINDINGS, INDEXED_UNIFORMS } from './kernels/matmul-operands.wgsl.js';
import { storageParams, type StorageParams } from './kernels/weight-step.wgsl.js';
import { checkActivations, checkResult, laneTile } from './matmul.js';
import { defaultMatmulTuning, sharedLanes, type MatmulTuning } from './matmul-tuning.js';
import type { DeviceMatrix } from './matrix.js';

/** Arguments of {@link indexedMatmul}. Offsets and strides are in elements. */
export interface IndexedMatmulArguments {
  /** Activations, f32 [at least firstXRow + ceil(xRows / xRowDivisor), weights.columns]. */
  readonly x: BufferRange;
  /** Rows of the result, one per expert id; zero does nothing. */
  readonly xRows: number;
  /** Weights of all experts, [experts * rowsPerExpert, columns]. */
  readonly weights: DeviceMatrix;
  /** Output features of one expert. */
  readonly rowsPerExpert: number;
  /** Expert of each row of the result, u32 [xRows], on the device. An unknown id gives zeros. */
  readonly expertIds: BufferRange;
  /**
   * Where the weights hold only some experts: the slot of each, u32 [experts], on the device. Rows
   * of experts whose slot is beyond the weights are left as they are. Default: expert e is the
   * e-th.
   */
  readonly slots?: BufferRange;
  /** Number of experts; with `slots` only. Default: those of the weights. */
  readonly experts?: number;
  /** Whether rows of an unknown id get zeros. Default: true. */
  readonly zeroUnknown?: boolean;
  /** Consecutive rows of the result that share a row of x (experts per token). Default: 1. */
  readonly xRowDivisor?: number;
  /** Result, f32; element (i, n) at `yOffset + i * yStride + n`. */
  readonly y: BufferRange;
  /** Adds to y instead of replacing it. Default: false. */
  readonly accumulate?: boolean;
  /** First row of x. Default: 0. */
  readonly firstXRow?: number;
  /** First element of the result. Default: 0. */
  readonly yOffset?: number;
  /** Elements from one row of the result to the next. Default: `rowsPerExpert`. */
  readonly yStride?: number;
  /** The kernels to use. Default: `defaultMatmulTuning(weights.device)`. */
  readonly tuning?: MatmulTuning;
}

/** Number of experts that ids may name. @throws VramError `invalid-argument` for a short table. */
function countExperts(
  { slots, experts }: Pick<IndexedMatmulArguments, 'slots' | 'experts'>,
  slotCount: number,
): number {
  if (slots === undefined) return slotCount;
  const count = checkInteger('experts', experts ?? 0, 1);
  assertArgument(count * 4 <= slots.sizeBytes, `a table of ${slots.sizeBytes} B for ${count}`, {
    experts: count,
    tableBytes: slots.sizeBytes,
  });
  return count;
}

/** Records one dispatch with the kernel that the tuning names. */
function dispatchIndexed(
  batch: Batch,
  product: {
    readonly weights: DeviceMatrix;
    readonly params: StorageParams;
    readonly vector: MatmulTuning['vector'];
    readonly bindings: Readonly<Record<keyof typeof INDEXED_BINDINGS, BufferRange>>;
    readonly slots: BufferRange | undefined;
    readonly uniforms: Readonly<Record<keyof typeof INDEXED_UNIFORMS, number>>;
  },
): void {
  const { weights, params, vector, bindings, slots, uniforms } = product;
  const { xRows, outputs, steps } = uniforms;
  const lanes = sharedLanes(weights.device);
  if (vector === 'lanes' && lanes > 0) {
    // The indexed kernel has unrolled steps only.
    const tile = laneTile(lanes, 1, false);
    const workgroups = xRows * Math.ceil(outputs / (tile.workgroupSize * tile.tileOutputs));
    const call = { params: { ...params, ...tile }, uniforms, workgroups };
    if (slots === undefined) batch.dispatch(laneIndexedKernel, { ...call, bindings });
    else batch.dispatch(laneMappedKernel, { ...call, bindings: { ...bindings, slots } });
    return;
  }
  const splits = splitsFor(steps);
  const workgroups = xRows * Math.ceil(outputs / splitOutputs(splits));
  const call = { params: { ...params, splits }, uniforms, workgroups };
  if (slots === undefined) batch.dispatch(splitIndexedKernel, { ...call, bindings });
  else batch.dispatch(splitMappedKernel, { ...call, bindings: { ...bindings, slots } });
}

/**
 * Records `y[i] = x[floor(i / xRowDivisor)] * transpose(experts[expertIds[i]])`, or `y[i] +=`. The
 * ids are read on the device, so a router's choice needs no readback. Each row reads its expert's
 * weights anew, also where rows share an expert.
 * @throws VramError `invalid-argument` where an operand is too small for the shape or the weights
 * are not a whole number of experts; `unsupported` where one row exceeds the binding limit;
 * `disposed`.
 */
export function indexedMatmul(batch: Batch, args: IndexedMatmulArguments): void {
  const { x, xRows, weights, rowsPerExpert, expertIds, y, xRowDivisor = 1 } = args;
  const { accumulate = false, firstXRow = 0, yOffset = 0, yStride = rowsPerExpert } = args;
  const { slots, zeroUnknown = true } = args;
  const { device, rows, columns, segments } = weights;
  checkInteger('rowsPerExpert', rowsPerExpert, 1, rows);
  checkInteger('xRowDivisor', xRowDivisor, 1);
  checkInteger('firstXRow', firstXRow);
  assertArgument(rows % rowsPerExpert === 0, `${rows} rows are not experts of ${rowsPerExpert}`);
  const slotCount = rows / rowsPerExpert;
  const experts = countExperts(args, slotCount);
  checkResult(args, { yOffset, yStride, outputs: rowsPerExpert });
  if (xRows === 0) return;
  checkActivations(x, firstXRow + Math.ceil(xRows / xRowDivisor), columns);
  const storage = storageParams(weights.layout);
  const steps = columns / storage.stepElements;
  const { vector } = args.tuning ?? defaultMatmulTuning(device);
  const fit = rowsPerDispatch(device, xRows, [
    { range: x, rowElements: columns / xRowDivisor },
    { range: y, rowElements: yStride },
    { range: expertIds, rowElements: 1 },
  ]);
  for (let first = 0, count = 0; first < xRows; first += count) {
    // A range of rows starts on a row of x, or stays within one, so that the division in the kernel
    // stays exact.
    const inRow = first % xRowDivisor;
    const whole = inRow === 0 && fit >= xRowDivisor;
    const most = whole ? fit - (fit % xRowDivisor) : Math.min(fit, xRowDivisor - inRow);
    count = fit >= xRows ? xRows : Math.min(most, xRows - first);
    const xFirst = firstXRow + Math.floor(first / xRowDivisor);
    const from = bindingWindow(
      device,
      x,
      xFirst * columns,
      Math.ceil(count / xRowDivisor) * columns,
    );
    const ids = bindingWindow(device, expertIds, first, count);
    const yFirst = yOffset + first * yStride;
    const to = bindingWindow(device, y, yFirst, (count - 1) * yStride + rowsPerExpert);
    for (const { firstRow, rowCount, codes, scales } of segments) {
      const bindings = { x: from.range, codes, scales, expertIds: ids.range, y: to.range };
      const uniforms = {
        xRows: count,
        outputs: rowsPerExpert,
        steps,
        xBase: from.base / 4,
        yBase: to.base,
        yStride,
        accumulate: accumulate ? 1 : 0,
        xRowDivisor,
        experts,
        slotCount,
        writesUnknown: zeroUnknown ? 1 : 0,
        segmentFirst: firstRow,
        segmentRows: rowCount,
        idBase: ids.base,
      };
      dispatchIndexed(batch, { weights, params: storage, vector, bindings, slots, uniforms });
    }
  }
}

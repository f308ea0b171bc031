/**
 * Records products of activations with weight matrices of any format.
 *
 * Each call becomes one dispatch where operands fit their bindings; otherwise one per segment of
 * the weights and per range of rows that fits. Nothing is allocated, and a repeated call finds its
 * pipelines and bind groups again. Which kernel runs is a {@link MatmulTuning}.
 */
import { assertArgument, checkInteger, type Batch, type BufferRange } from '@vramkit/core';
import { bindingWindow, rowsPerDispatch } from './binding-window.js';
import { laneMatmulKernel } from './kernels/matmul-lanes.wgsl.js';
import { splitMatmulKernel, splitOutputs, splitsFor } from './kernels/matmul-split.wgsl.js';
import { TILED, tiledMatmulKernel } from './kernels/matmul-tiled.wgsl.js';
import { stepElements, storageParams } from './kernels/weight-step.wgsl.js';
import { defaultMatmulTuning, sharedLanes, type MatmulTuning } from './matmul-tuning.js';
import type { DeviceMatrix } from './matrix.js';

/** Arguments of {@link matmul}. Offsets and strides are in elements. */
export interface MatmulArguments {
  /** Activations, f32 [at least firstXRow + xRows, weights.columns], row-major. */
  readonly x: BufferRange;
  /** Rows of x to multiply; zero does nothing. */
  readonly xRows: number;
  /** Weights [outputs, columns]; the product is `x * transpose(weights)`. */
  readonly weights: DeviceMatrix;
  /** Result, f32; element (m, n) at `yOffset + m * yStride + n`. */
  readonly y: BufferRange;
  /** Adds to y instead of replacing it. Default: false. */
  readonly accumulate?: boolean;
  /** First row of x. Default: 0. */
  readonly firstXRow?: number;
  /** First element of the result. Default: 0. */
  readonly yOffset?: number;
  /** Elements from one row of the result to the next. Default: `weights.rows`. */
  readonly yStride?: number;
  /** The kernels to use. Default: `defaultMatmulTuning(weights.device)`. */
  readonly tuning?: MatmulTuning;
}

/** Rows from which on a larger tile pays for itself, though its sums leave the registers. */
const MANY_ROWS = 32;

/** Workgroup and tile of the shape `lanes`; dense weights are those without groups. */
export function laneTile(
  lanes: number,
  xRows: number,
  dense: boolean,
): {
  readonly lanes: number;
  readonly tileRows: number;
  readonly tileOutputs: number;
  readonly workgroupSize: number;
  readonly chunked: boolean;
} {
  if (lanes === 8 && (xRows > 1 || dense)) {
    // 16 rows: more, and the loop outgrows the instruction cache. Rows are split evenly.
    const tiles = Math.ceil(xRows / 16);
    const tileRows = xRows === 1 ? 1 : 4 * Math.ceil(xRows / (4 * tiles));
    return { lanes, tileRows, tileOutputs: 4, workgroupSize: 16, chunked: true };
  }
  // Loads cost one sequence of instructions per lane, so a tile of twice the side halves them.
  if (xRows >= MANY_ROWS) {
    return { lanes, tileRows: 8, tileOutputs: 8, workgroupSize: lanes, chunked: false };
  }
  // A tile of registers, cut where there are fewer rows than it has.
  const tileOutputs = 32 / lanes;
  const tileRows = xRows === 1 ? 1 : xRows <= 4 ? 4 : tileOutputs;
  return { lanes, tileRows, tileOutputs, workgroupSize: 16, chunked: false };
}

/** Checks the result's place. @throws VramError `invalid-argument`. */
export function checkResult(
  args: Pick<MatmulArguments, 'y' | 'xRows'>,
  layout: { readonly yOffset: number; readonly yStride: number; readonly outputs: number },
): void {
  const { yOffset, yStride, outputs } = layout;
  checkInteger('xRows', args.xRows);
  checkInteger('yOffset', yOffset);
  checkInteger('yStride', yStride, outputs);
  const end = yOffset + (args.xRows - 1) * yStride + outputs;
  assertArgument(
    args.xRows === 0 || end * 4 <= args.y.sizeBytes,
    `the result ends at element ${end} of a range of ${args.y.sizeBytes} B`,
    { end, rangeBytes: args.y.sizeBytes, yOffset, yStride },
  );
}

/** Checks the extent of x. @throws VramError `invalid-argument`. */
export function checkActivations(x: BufferRange, rows: number, columns: number): void {
  assertArgument(
    rows * columns * 4 <= x.sizeBytes,
    `${rows} rows of ${columns} leave x of ${x.sizeBytes} B`,
    { rows, columns, rangeBytes: x.sizeBytes },
  );
}

/** Records one dispatch with the kernel that the tuning names. */
function dispatchProduct(
  batch: Batch,
  product: {
    readonly weights: DeviceMatrix;
    readonly tuning: MatmulTuning;
    readonly bindings: Readonly<Record<'x' | 'codes' | 'scales' | 'y', BufferRange>>;
    readonly uniforms: Readonly<
      Record<'xRows' | 'outputs' | 'steps' | 'xBase' | 'yBase' | 'yStride' | 'accumulate', number>
    >;
  },
): void {
  const { weights, tuning, bindings, uniforms } = product;
  const storage = storageParams(weights.layout);
  const { xRows, outputs, steps } = uniforms;
  const lanes = sharedLanes(weights.device);
  const shape = xRows === 1 ? tuning.vector : tuning.matrix;
  if (shape === 'lanes' && lanes > 0) {
    const tile = laneTile(lanes, xRows, weights.groupSize === 0);
    batch.dispatch(laneMatmulKernel, {
      params: { ...storage, ...tile },
      bindings,
      uniforms,
      workgroups:
        Math.ceil(xRows / tile.tileRows) *
        Math.ceil(outputs / (tile.workgroupSize * tile.tileOutputs)),
    });
  } else if (xRows === 1) {
    const splits = splitsFor(steps);
    batch.dispatch(splitMatmulKernel, {
      params: { ...storage, splits },
      bindings,
      uniforms,
      workgroups: Math.ceil(outputs / splitOutputs(splits)),
    });
  } else {
    batch.dispatch(tiledMatmulKernel, {
      params: storage,
      bindings,
      uniforms,
      workgroups: Math.ceil(xRows / TILED.rows) * Math.ceil(outputs / TILED.outputs),
    });
  }
}

/**
 * Records `y = x * transpose(weights)`, or `y +=`.
 * @throws VramError `invalid-argument` where an operand is too small for the shape; `unsupported`
 * where one row of x exceeds the binding limit; `disposed`.
 */
export function matmul(batch: Batch, args: MatmulArguments): void {
  const { x, xRows, weights, y, accumulate = false, firstXRow = 0, yOffset = 0 } = args;
  const { device, rows, columns, groupSize, segments } = weights;
  const yStride = args.yStride ?? rows;
  checkInteger('firstXRow', firstXRow);
  checkResult(args, { yOffset, yStride, outputs: rows });
  if (xRows === 0) return;
  checkActivations(x, firstXRow + xRows, columns);
  const tuning = args.tuning ?? defaultMatmulTuning(device);
  const chunk = rowsPerDispatch(device, xRows, [
    { range: x, rowElements: columns },
    { range: y, rowElements: yStride },
  ]);
  for (let first = 0; first < xRows; first += chunk) {
    const count = Math.min(chunk, xRows - first);
    const from = bindingWindow(device, x, (firstXRow + first) * columns, count * columns);
    for (const { firstRow, rowCount, codes, scales } of segments) {
      const firstY = yOffset + first * yStride + firstRow;
      const to = bindingWindow(device, y, firstY, (count - 1) * yStride + rowCount);
      dispatchProduct(batch, {
        weights,
        tuning,
        bindings: { x: from.range, codes, scales, y: to.range },
        uniforms: {
          xRows: count,
          outputs: rowCount,
          steps: columns / stepElements(columns, groupSize),
          xBase: from.base / 4,
          yBase: to.base,
          yStride,
          accumulate: accumulate ? 1 : 0,
        },
      });
    }
  }
}

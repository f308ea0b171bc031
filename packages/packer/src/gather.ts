/**
 * Records row lookups in weight matrices of any format: embeddings.
 */
import { assertArgument, checkInteger, type Batch, type BufferRange } from '@vramkit/core';
import { bindingWindow, rowsPerDispatch } from './binding-window.js';
import { GATHER_WORKGROUP_SIZE, gatherRowsKernel } from './kernels/gather-rows.wgsl.js';
import { storageParams } from './kernels/weight-step.wgsl.js';
import type { DeviceMatrix } from './matrix.js';

/** Arguments of {@link gatherRows}. */
export interface GatherRowsArguments {
  readonly weights: DeviceMatrix;
  /** Rows to look up, u32 [count], on the device. An id beyond the matrix gives zeros. */
  readonly ids: BufferRange;
  /** Ids to look up; zero does nothing. */
  readonly count: number;
  /** Result, f32 [count, weights.columns]. */
  readonly y: BufferRange;
}

/**
 * Records `y[i] = weights[ids[i]]`, widened to f32.
 * @throws VramError `invalid-argument` where `ids` or `y` is too small; `unsupported` where one row
 * of the result exceeds the binding limit; `disposed`.
 */
export function gatherRows(batch: Batch, args: GatherRowsArguments): void {
  const { weights, ids, count, y } = args;
  const { device, rows, columns, segments } = weights;
  checkInteger('count', count);
  assertArgument(
    count * 4 <= ids.sizeBytes && count * columns * 4 <= y.sizeBytes,
    `${count} rows of ${columns} leave ids of ${ids.sizeBytes} B or y of ${y.sizeBytes} B`,
    { count, columns, idBytes: ids.sizeBytes, rangeBytes: y.sizeBytes },
  );
  const storage = storageParams(weights.layout);
  const steps = columns / storage.stepElements;
  const chunk = rowsPerDispatch(device, count, [
    { range: ids, rowElements: 1 },
    { range: y, rowElements: columns },
  ]);
  for (let first = 0; first < count; first += chunk) {
    const part = Math.min(chunk, count - first);
    const from = bindingWindow(device, ids, first, part);
    const to = bindingWindow(device, y, first * columns, part * columns);
    for (const segment of segments) {
      const { codes, scales } = segment;
      batch.dispatch(gatherRowsKernel, {
        params: storage,
        bindings: { codes, scales, ids: from.range, y: to.range },
        uniforms: {
          count: part,
          rows,
          segmentFirst: segment.firstRow,
          segmentRows: segment.rowCount,
          steps,
          idBase: from.base,
          yBase: to.base / 4,
        },
        workgroups: Math.ceil((part * steps) / GATHER_WORKGROUP_SIZE),
      });
    }
  }
}

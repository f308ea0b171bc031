/**
 * CPU twin of the row lookup: its definition.
 */
import { rowValues, type HostMatrix } from './host-matrix.js';

/** `y[i] = weights[ids[i]]`; zeros where there is no such row. */
export function gatherRowsCpu(args: {
  readonly weights: HostMatrix;
  readonly ids: Uint32Array;
  /** Result [ids, columns]. */
  readonly y: Float32Array;
}): void {
  const { rows, columns } = args.weights.layout;
  args.ids.forEach((id, i) => {
    if (id < rows) args.y.set(rowValues(args.weights, id), i * columns);
    else args.y.fill(0, i * columns, (i + 1) * columns);
  });
}

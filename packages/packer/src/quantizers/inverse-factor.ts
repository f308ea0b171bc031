/**
 * The upper factor U with U^T U = inverse(H), by any number of threads, for gptq.
 *
 * H = R R^T with R upper, rows from the last to the first; then U = inverse(R), in the same order:
 *
 *     R_ij = (H_ij - sum over k > j of R_ik R_jk) / R_jj,  R_ii the root of its sum
 *     U_i  = (e_i - sum over k > i of R_ik U_k) / R_ii
 *
 * A row needs the rows after it, and the very next one only for its last sums. So threads take rows
 * in turn and wait only for one that is not done yet. Each sum has one order, whatever the number
 * of threads, so all give the same bits. Cost: columns^3 / 3 products.
 */
import { fail } from '@vramkit/core';

/** Columns as they are stored, or those of most power first. */
export type ColumnOrder = 'stored' | 'power';

/** The columns of moments in that order; of equal power the first is first. */
export function columnsInOrder(
  moments: Float64Array,
  columns: number,
  how: ColumnOrder,
): Uint32Array {
  const order = Uint32Array.from({ length: columns }, (_, i) => i);
  const power = (i: number): number => moments[i * columns + i] ?? 0;
  return how === 'stored' ? order : order.sort((a, b) => power(b) - power(a) || a - b);
}

/** What threads that compute a factor together share. */
export interface FactorTeam {
  /** This thread, and how many there are. */
  readonly index: number;
  readonly count: number;
  /** R, [columns, columns]. */
  readonly root: Float64Array;
  /** U, [columns, columns]; zero below the diagonal. */
  readonly upper: Float64Array;
  /** The least row done of R, and of U; both `columns` at first, -1 after a failure. */
  readonly progress: Int32Array;
}

/** A team of one. */
export function alone(columns: number): FactorTeam {
  const matrix = (): Float64Array => new Float64Array(columns * columns);
  const progress = Int32Array.of(columns, columns);
  return { index: 0, count: 1, root: matrix(), upper: matrix(), progress };
}

/**
 * Computes this thread's rows; U is whole when all threads have returned.
 * @param moments [columns, columns]; the diagonal grows by `damping` times its mean, a 0 on it
 * counts as 1.
 * @param order Which columns the rows of U stand for, one after the other.
 * @throws VramError `invalid-argument` in the thread that finds that there is no factor; the others
 * return.
 */
export function inverseFactor(
  moments: Float64Array,
  order: Uint32Array,
  damping: number,
  team: FactorTeam,
): void {
  const { index, count, root, upper, progress } = team;
  const columns = order.length;
  const momentOf = (i: number, j: number): number =>
    moments[(order[i] ?? 0) * columns + (order[j] ?? 0)] ?? 0;
  let mean = 0;
  for (let i = 0; i < columns; i++) mean += (moments[i * columns + i] ?? 0) / columns;
  for (let i = columns - 1 - index; i >= 0; i -= count) {
    const row = root.subarray(i * columns, (i + 1) * columns);
    for (let j = columns - 1; j > i; j--) {
      if (!isDone(progress, 0, j)) return;
      const other = root.subarray(j * columns, (j + 1) * columns);
      const sum = rest(row, other, j, momentOf(i, j));
      row[j] = sum / (other[j] ?? 1);
    }
    const diagonal = momentOf(i, i);
    const sum = rest(row, row, i, (diagonal === 0 ? 1 : diagonal) + damping * mean);
    if (!(sum > 0)) {
      for (const step of [0, 1]) finish(progress, step, -1);
      fail('invalid-argument', `moments are not positive definite at column ${order[i]}`, { i });
    }
    row[i] = Math.sqrt(sum);
    finish(progress, 0, i);
  }
  for (let i = columns - 1 - index; i >= 0; i -= count) {
    const out = upper.subarray(i * columns, (i + 1) * columns).fill(0);
    const inverse = 1 / (root[i * columns + i] ?? 1);
    for (let k = columns - 1; k > i; k--) {
      if (!isDone(progress, 1, k)) return;
      const by = (root[i * columns + k] ?? 0) * inverse;
      for (let j = k; j < columns; j++) out[j] = (out[j] ?? 0) - by * (upper[k * columns + j] ?? 0);
    }
    out[i] = inverse;
    finish(progress, 1, i);
  }
}

/** `start` less the product of two rows after column `j`. */
function rest(a: Float64Array, b: Float64Array, j: number, start: number): number {
  let sum = start;
  for (let k = a.length - 1; k > j; k--) sum -= (a[k] ?? 0) * (b[k] ?? 0);
  return sum;
}

/** Times to look before a thread sleeps, for some microseconds: to be woken takes longer. */
const SPIN = 2000;

/** Waits until `row` is done; false where it never will be. */
function isDone(progress: Int32Array, step: number, row: number): boolean {
  for (let turn = 0; ; turn++) {
    const least = Atomics.load(progress, step);
    if (least <= row) return least >= 0;
    if (turn >= SPIN) Atomics.wait(progress, step, least);
  }
}

/** Says that `row` is done, or that there was a failure, which stays. */
function finish(progress: Int32Array, step: number, row: number): void {
  if (row < 0) Atomics.store(progress, step, row);
  else Atomics.compareExchange(progress, step, row + 1, row);
  Atomics.notify(progress, step);
}

/**
 * How well a score orders units by what they really lose: Spearman's rank correlation.
 */
import { assertArgument } from '@vramkit/core';

/** Ranks from 1; equal values share the mean of their ranks. */
function ranks(values: readonly number[]): number[] {
  const order = values.map((_, i) => i).sort((a, b) => (values[a] ?? 0) - (values[b] ?? 0));
  const result = new Array<number>(values.length).fill(0);
  for (let start = 0; start < order.length;) {
    let end = start + 1;
    const value = values[order[start] ?? 0];
    while (end < order.length && values[order[end] ?? 0] === value) end++;
    for (const i of order.slice(start, end)) result[i] = (start + 1 + end) / 2;
    start = end;
  }
  return result;
}

/**
 * Spearman's coefficient in [-1, 1]; 0 where one side is constant and has no order.
 * @throws VramError `invalid-argument` for lists of different or no length.
 */
export function rankCorrelation(a: readonly number[], b: readonly number[]): number {
  assertArgument(a.length === b.length && a.length > 0, `${a.length} scores, ${b.length} errors`);
  const [x, y] = [ranks(a), ranks(b)];
  const mean = (a.length + 1) / 2;
  let [xy, xx, yy] = [0, 0, 0];
  x.forEach((rank, i) => {
    const dx = rank - mean;
    const dy = (y[i] ?? 0) - mean;
    xy += dx * dy;
    xx += dx * dx;
    yy += dy * dy;
  });
  return xx === 0 || yy === 0 ? 0 : xy / Math.sqrt(xx * yy);
}

/** Rank correlation of each score with the measured errors of the same units, best first. */
export function correlationReport(
  scores: ReadonlyMap<string, readonly number[]>,
  errors: readonly number[],
): { readonly score: string; readonly correlation: number }[] {
  return [...scores]
    .map(([score, values]) => ({ score, correlation: rankCorrelation(values, errors) }))
    .sort((a, b) => b.correlation - a.correlation);
}

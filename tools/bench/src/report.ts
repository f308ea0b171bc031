/**
 * The one shape of every figure that a benchmark or a study reports, and how it is shown and
 * stored.
 *
 * `ours` and `peers` hold medians in `unit`; `min`, `max` and `runs` belong to `ours`. A ratio is
 * the quotient of two medians of the same rounds, turned so that above 1 always means that ours
 * is the better one: ours / peer where a higher figure is better, peer / ours where a lower one
 * is.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Measured } from './measure.js';

/** One figure of ours beside the same figure of each peer. */
export interface BenchResult {
  /** Name of the benchmark or study. */
  readonly suite: string;
  /** The workload within it, with its sizes. */
  readonly case: string;
  /** What is measured. */
  readonly metric: string;
  /** Unit of `ours`, `peers`, `min` and `max`. */
  readonly unit: string;
  /** Our median. */
  readonly ours: number;
  /** Each peer's median. */
  readonly peers: Readonly<Record<string, number>>;
  /** Each peer's ratio; above 1, ours is better. */
  readonly ratios: Readonly<Record<string, number>>;
  /** The GPU driver that ours ran on, or `none`. */
  readonly driver: string;
  /** How many runs our median rests on. */
  readonly runs: number;
  /** Our least figure. */
  readonly min: number;
  /** Our greatest figure. */
  readonly max: number;
}

/** What a figure is, apart from its value. */
export interface FigureName extends Pick<
  BenchResult,
  'suite' | 'case' | 'metric' | 'unit' | 'driver'
> {
  /** Which direction is good. */
  readonly better: 'higher' | 'lower';
}

/**
 * Ours against a peer, so that above 1 ours is better.
 * @throws RangeError where a figure is not positive: a ratio of it would say nothing.
 */
export function ratioOf(ours: number, peer: number, better: 'higher' | 'lower'): number {
  if (!(ours > 0) || !(peer > 0)) throw new RangeError(`no ratio of ${ours} and ${peer}`);
  return better === 'higher' ? ours / peer : peer / ours;
}

/** Turns what was measured into the reported shape. */
export function toResult(name: FigureName, measured: Measured): BenchResult {
  const { suite, metric, unit, driver, better } = name;
  const ours = measured.ours.median;
  const peers = Object.entries(measured.peers).map(([peer, { median }]) => [peer, median] as const);
  return {
    suite,
    case: name.case,
    metric,
    unit,
    ours,
    peers: Object.fromEntries(peers),
    ratios: Object.fromEntries(peers.map(([peer, value]) => [peer, ratioOf(ours, value, better)])),
    driver,
    runs: measured.ours.runs,
    min: measured.ours.min,
    max: measured.ours.max,
  };
}

/** A number in three significant digits, without an exponent up to a million. */
export function formatFigure(value: number): string {
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2);
  return size >= 100 ? Math.round(value).toString() : value.toPrecision(3);
}

/** Sets cells in columns: the first two to the left, figures to the right. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const count = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from({ length: count }, (_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (row: readonly string[]): string =>
    widths
      .map((width, column) => {
        const cell = row[column] ?? '';
        return column < 2 ? cell.padEnd(width) : cell.padStart(width);
      })
      .join('  ')
      .trimEnd();
  return rows.map(line).join('\n');
}

/** The results as a table: one line per figure, one column per peer with its ratio in brackets. */
export function formatResults(results: readonly BenchResult[]): string {
  const peers = [...new Set(results.flatMap((result) => Object.keys(result.peers)))];
  const rows = results.map((result) => [
    result.case,
    `${result.metric}, ${result.unit}`,
    formatFigure(result.ours),
    `[${formatFigure(result.min)}-${formatFigure(result.max)}]`,
    ...peers.map((peer) => {
      const value = result.peers[peer];
      const ratio = result.ratios[peer];
      if (value === undefined || ratio === undefined) return '-';
      return `${formatFigure(value)} (x${formatFigure(ratio)})`;
    }),
  ]);
  return formatTable([['case', 'metric', 'ours', 'range', ...peers], ...rows]);
}

/** Writes `{ "results": [...] }`, making the folder where it is missing. */
export async function writeResults(path: string, results: readonly BenchResult[]): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `${JSON.stringify({ results }, undefined, 2)}\n`);
}

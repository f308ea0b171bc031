/** The example's report: one HTML page, the timeline for Perfetto, and the losses as JSON. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { TraceEvent } from '@vramkit/core';
import { chromeTrace, renderReport, type Plot, type ReportTable } from '@vramkit/trace';
import { accumulationTable, type AccumulationRow } from './accumulation.js';
import { comparisonTable, type Comparison } from './compare.js';
import type { TrainedStep } from './trainer.js';

/** What a command gave. */
export interface TrainReport {
  readonly facts: Readonly<Record<string, string>>;
  readonly parameterCount: number;
  readonly steps: readonly TrainedStep[];
  /** Of the first steps. */
  readonly events: readonly TraceEvent[];
  readonly comparison: Comparison | undefined;
  readonly accumulation: readonly AccumulationRow[];
}

function plots({ steps, comparison, accumulation }: TrainReport): Plot[] {
  const losses: Plot = {
    title: 'Loss',
    xLabel: 'step',
    yLabel: 'nats a byte',
    x: steps.map(({ step }) => step),
    series: [{ label: 'loss', values: steps.map(({ loss }) => loss) }],
  };
  const [reference, ...others] = comparison?.runs ?? [];
  const differences: Plot = {
    title: 'Difference to the loss without offloading',
    xLabel: 'step',
    yLabel: 'nats a byte',
    x: reference?.losses.map((_, at) => at + 1) ?? [],
    series: others.map(({ name, losses: own }) => ({
      label: name,
      values: own.map((loss, at) => loss - (reference?.losses[at] ?? NaN)),
    })),
  };
  const sweep: Plot = {
    title: 'Iteration over passes for each update',
    xLabel: 'passes',
    yLabel: 'ms',
    x: accumulation.map(({ passes }) => passes),
    series: [
      { label: 'no offload', values: accumulation.map(({ residentMs }) => residentMs) },
      { label: 'offloaded', values: accumulation.map(({ offloadedMs }) => offloadedMs) },
    ],
  };
  return [losses, differences, sweep];
}

function tables({ comparison, accumulation }: TrainReport): ReportTable[] {
  const table = (title: string, [header = [], ...rows]: readonly string[][]): ReportTable => ({
    ...{ title, header, rows },
  });
  return [
    ...(comparison === undefined ? [] : [table('Loss by plan', comparisonTable(comparison))]),
    ...(accumulation.length === 0 ? [] : [table('Accumulation', accumulationTable(accumulation))]),
  ];
}

/** Writes all files into a folder; gives the page's path. */
export async function writeReport(folder: string, report: TrainReport): Promise<string> {
  const require = createRequire(import.meta.url);
  const library = {
    script: await readFile(require.resolve('uplot/dist/uPlot.iife.min.js'), 'utf8'),
    style: await readFile(require.resolve('uplot/dist/uPlot.min.css'), 'utf8'),
  };
  const { facts, parameterCount, events, steps, comparison, accumulation } = report;
  const page = renderReport(events, library, {
    ...{ title: 'Training with offloaded optimizer state', facts, parameterCount },
    plots: plots(report),
    tables: tables(report),
  });
  await mkdir(folder, { recursive: true });
  const path = join(folder, 'report.html');
  await writeFile(path, page);
  await writeFile(join(folder, 'trace.json'), JSON.stringify(chromeTrace(events)));
  const figures = { facts, steps, comparison, accumulation };
  await writeFile(join(folder, 'losses.json'), `${JSON.stringify(figures, undefined, 1)}\n`);
  return path;
}

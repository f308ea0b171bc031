/** The report of a run: one page and its figures as JSON. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { memoryPlot, renderReport, type Plot } from '@vramkit/trace';
import { reportFacts, reportTables } from './figures.js';
import type { LifeRecord } from './life.js';
import type { CombinedReport } from './pipeline.js';

/** Device memory by kind with the stages behind, in seconds, from a stage to the end. */
function lifePlot({ stages, events }: LifeRecord, title: string, from: string): Plot {
  const fromMs = stages.find(({ name }) => name === from)?.startMs ?? 0;
  const phases = stages.map(({ name: label, startMs: timeMs, endMs }) => ({
    ...({ type: 'phase' } as const),
    ...{ label, timeMs, durationMs: endMs - timeMs },
  }));
  const shown = [...events, ...phases].filter(({ timeMs }) => timeMs >= fromMs);
  // What the stage found on the device was there when it began.
  const found = events.findLast((event) => 'liveBytes' in event && event.timeMs < fromMs);
  const plot = memoryPlot(found === undefined ? shown : [{ ...found, timeMs: fromMs }, ...shown]);
  const seconds = (ms: number): number => (ms + fromMs) / 1e3;
  return {
    ...plot,
    title,
    xLabel: 's',
    x: plot.x.map(seconds),
    bands: (plot.bands ?? []).map(({ label, from: start, to }) => ({
      ...{ label, from: seconds(start), to: seconds(to) },
    })),
  };
}

/** Losses of steps that a point of the mean stands for. */
const MEAN_OF = 10;

function lossPlot({ train }: CombinedReport): Plot {
  const losses = train.steps.map(({ loss }) => loss);
  const mean = (at: number): number | null => {
    const last = losses.slice(Math.max(0, at + 1 - MEAN_OF), at + 1);
    return last.length < MEAN_OF ? null : last.reduce((sum, loss) => sum + loss, 0) / MEAN_OF;
  };
  const means = losses.map((_, at) => mean(at));
  return {
    title: 'Loss of training',
    xLabel: 'step',
    yLabel: 'nats a byte',
    x: train.steps.map(({ step }) => step),
    series: [
      { label: 'loss', values: losses },
      ...(losses.length < MEAN_OF ? [] : [{ label: `mean of ${MEAN_OF}`, values: means }]),
    ],
  };
}

/** Writes both files into a folder; gives the page's path. */
export async function writeReport(
  folder: string,
  report: CombinedReport,
  record: LifeRecord,
): Promise<string> {
  const require = createRequire(import.meta.url);
  const library = {
    script: await readFile(require.resolve('uplot/dist/uPlot.iife.min.js'), 'utf8'),
    style: await readFile(require.resolve('uplot/dist/uPlot.min.css'), 'utf8'),
  };
  const page = renderReport([], library, {
    title: 'One model, one budget: trained, packed, served',
    facts: reportFacts(report),
    plots: [
      lifePlot(record, 'Device memory by kind, the whole life', 'train'),
      lifePlot(record, 'Device memory by kind, from packing on', 'pack'),
      lossPlot(report),
    ],
    tables: reportTables(report),
  });
  await mkdir(folder, { recursive: true });
  const path = join(folder, 'report.html');
  await writeFile(path, page);
  const json = JSON.stringify({ ...report, memory: record.events }, undefined, 1);
  await writeFile(join(folder, 'report.json'), `${json}\n`);
  return path;
}

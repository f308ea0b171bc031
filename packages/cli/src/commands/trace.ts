/**
 * `vramkit trace`: what a recorded run did with its device, from the Chrome trace that it wrote
 * (`chromeTrace` of `@vramkit/trace`), as tables, as a CSV of samples or as one HTML page.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { fail, VramError, type TraceEvent } from '@vramkit/core';
import {
  nvmlCsv,
  occupancyTable,
  overlapTable,
  peakBytes,
  phaseTable,
  readChromeTrace,
  renderReport,
  timeRange,
  type ReportTable,
} from '@vramkit/trace';
import type { Command, OptionValues, Terminal } from '../command-line.js';
import { formatBytes } from '../doctor/format.js';

async function readTrace(path: string): Promise<TraceEvent[]> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new VramError('not-found', `${path} cannot be read`, { cause });
  }
  try {
    return readChromeTrace(JSON.parse(text));
  } catch (cause) {
    const why = cause instanceof Error ? `: ${cause.message}` : '';
    throw new VramError('corrupt-data', `${path} is no trace of vramkit${why}`, { cause });
  }
}

function formatTable({ title, header, rows }: ReportTable): string {
  const all = [header, ...rows];
  const widths = header.map((_, at) => Math.max(...all.map((row) => row[at]?.length ?? 0)));
  const lines = all.map((row) => {
    const cells = widths.map((width, at) =>
      at === 0 ? (row[at] ?? '').padEnd(width) : (row[at] ?? '').padStart(width),
    );
    return `  ${cells.join('  ').trimEnd()}\n`;
  });
  return `\n${title}\n${lines.join('')}`;
}

/** uPlot's text, which the page holds. */
async function plotLibrary(): Promise<{ script: string; style: string }> {
  const { resolve } = createRequire(import.meta.url);
  const read = (name: string): Promise<string> => readFile(resolve(`uplot/dist/${name}`), 'utf8');
  return { script: await read('uPlot.iife.min.js'), style: await read('uPlot.min.css') };
}

/** The option's value as a count above 0, or nothing. */
function countOf(options: OptionValues, name: string): number | undefined {
  const value = options[name];
  if (value === undefined) return undefined;
  const count = Number(value);
  if (Number.isSafeInteger(count) && count > 0) return count;
  return fail('invalid-argument', `--${name} ${String(value)} is no count above 0`);
}

async function run(
  options: OptionValues,
  terminal: Terminal,
  [path = '']: readonly string[],
): Promise<number> {
  const parameterCount = countOf(options, 'parameters');
  const totalBytes = countOf(options, 'total-bytes');
  const events = await readTrace(path);
  const { csv, html } = options;
  const peak = peakBytes(events);
  if (typeof csv === 'string') {
    await writeFile(csv, nvmlCsv(events, { totalBytes: totalBytes ?? Math.max(1, peak.total) }));
  }
  if (typeof html === 'string') {
    const page = { title: path, ...(parameterCount === undefined ? {} : { parameterCount }) };
    await writeFile(html, renderReport(events, await plotLibrary(), page));
  }
  const tables = [
    phaseTable(events, parameterCount),
    occupancyTable(events),
    overlapTable(events),
  ].filter(({ rows }) => rows.length > 0);
  const { fromMs, toMs } = timeRange(events);
  const durationMs = toMs - fromMs;
  if (options['json'] === true) {
    const report = { ok: true, events: events.length, durationMs, peakBytes: peak, tables };
    terminal.out(`${JSON.stringify(report, null, 2)}\n`);
    return 0;
  }
  const kinds = Object.entries(peak.byKind).map(([kind, bytes]) => `${kind} ${formatBytes(bytes)}`);
  const memory = kinds.length === 0 ? 'no memory' : `at most ${formatBytes(peak.total)}`;
  const most = kinds.length === 0 ? '' : ` (most of each: ${kinds.join(', ')})`;
  terminal.out(
    `${events.length} events in ${durationMs.toFixed(3)} ms, ${memory}${most}\n` +
      tables.map(formatTable).join(''),
  );
  return 0;
}

/** The command. */
export const trace: Command = {
  name: 'trace',
  summary: 'show what a recorded run did: phases, transfers, memory by kind',
  options: {
    html: { type: 'string', value: 'FILE', summary: 'write a page with plots, whole in itself' },
    csv: { type: 'string', value: 'FILE', summary: 'write samples with the columns of NVML' },
    parameters: { type: 'string', value: 'N', summary: 'show bytes for each of N parameters' },
    'total-bytes': {
      type: 'string',
      value: 'N',
      summary: 'memory of the device, for the CSV (default: the peak)',
    },
    json: { type: 'boolean', summary: 'print the report as JSON' },
  },
  arguments: [{ name: 'FILE', summary: 'a trace that chromeTrace() of @vramkit/trace wrote' }],
  examples: [
    ['vramkit trace trace.json', 'phases, lanes and their overlap'],
    ['vramkit trace trace.json --html report.html', 'the same as a page, with plots'],
  ],
  run,
};

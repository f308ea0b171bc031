/**
 * The study of packing in three forms: rows as JSON, tables as Markdown, a plot for each model.
 *
 * Losses of two rows are compared window by window, because windows differ from each other by far
 * more than ways of storing do: a difference comes with the standard error of its mean.
 */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { deviation, mean } from '../metrics.js';
import { curvePlot, type Curve } from '../report/plots.js';
import { toMarkdown, type Table } from '../report/tables.js';
import type { RowResult } from './run.js';
import type { TextPart } from './texts.js';

const SEARCHED = 'optRtn-asymmetric';
const BY_MAGNITUDE = 'optRtn-asymmetric-magnitude';
const PARTS: readonly TextPart[] = ['evaluation text', 'seen documents', 'unseen documents'];

async function readRows(folder: string): Promise<RowResult[]> {
  const names = (await readdir(folder).catch(() => [])).filter((name) => name.endsWith('.json'));
  const texts = await Promise.all(names.map((name) => readFile(join(folder, name), 'utf8')));
  // The files are the study's own.
  const rows = texts.map((text) => JSON.parse(text) as RowResult);
  return rows.sort((a, b) => a.order - b.order);
}

/** Mean loss of a row over the windows of some parts. */
export function lossOf(row: RowResult, parts: readonly TextPart[] = PARTS): number {
  return mean(row.windows.filter(({ part }) => parts.includes(part)).map(({ loss }) => loss));
}

/** Perplexity of a row over the windows of some parts. */
export function perplexityOf(row: RowResult, parts: readonly TextPart[] = PARTS): number {
  return Math.exp(lossOf(row, parts));
}

/** By how much the loss of `row` is above that of `base`, and the standard error of that. */
export function riseOver(row: RowResult, base: RowResult): { mean: number; error: number } {
  const rises = row.windows.map(({ loss }, i) => loss - (base.windows[i]?.loss ?? NaN));
  return { mean: mean(rises), error: deviation(rises) / Math.sqrt(rises.length) };
}

const signed = (value: number): string => `${value < 0 ? '' : '+'}${value.toFixed(4)}`;

function title({ name, target }: RowResult): string {
  return target === undefined ? name : `${name} to ${target} bits`;
}

/** All rows of a model by rising bits. */
export function wholeTable(rows: readonly RowResult[]): Table {
  const reference = rows.find(({ kind }) => kind === 'reference');
  const sorted = [...rows].sort((a, b) => (a.bitsPerWeight ?? 99) - (b.bitsPerWeight ?? 99));
  return [
    ['widths', 'quantizer', 'true bits', 'MSE', 'SQNR, dB', ...PARTS, 'loss, nats'],
    ...sorted.map((row) => [
      title(row),
      row.quantizer,
      row.bitsPerWeight?.toFixed(3) ?? '-',
      row.mse.toExponential(2),
      row.sqnrDb?.toFixed(2) ?? '-',
      ...PARTS.map((part) => perplexityOf(row, [part]).toFixed(3)),
      reference === undefined || row === reference ? '-' : signed(riseOver(row, reference).mean),
    ]),
  ];
}

/** Every mixed row beside the best uniform row of the same quantizer and bits, within 0.02. */
export function mixedTable(rows: readonly RowResult[]): Table {
  const uniform = rows.filter(({ kind }) => kind === 'uniform');
  const compared = rows
    .filter(({ kind, target }) => kind === 'mixed' && target !== undefined)
    .flatMap((row) => {
      const same = uniform.filter(({ bitsPerWeight, quantizer }) => {
        const apart = Math.abs((bitsPerWeight ?? 0) - (row.target ?? 0));
        return quantizer === row.quantizer && apart < 0.02;
      });
      const [base] = same.sort((a, b) => lossOf(a) - lossOf(b));
      return base === undefined ? [] : [{ row, base, rise: riseOver(row, base) }];
    })
    .sort((a, b) => (a.row.target ?? 0) - (b.row.target ?? 0) || a.rise.mean - b.rise.mean);
  return [
    [
      ...['mixed widths', 'quantizer', 'true bits', 'perplexity'],
      ...['uniform', 'true bits', 'perplexity', 'loss, nats'],
    ],
    ...compared.map(({ row, base, rise }) => [
      title(row),
      row.quantizer,
      row.bitsPerWeight?.toFixed(3) ?? '-',
      perplexityOf(row).toFixed(3),
      base.name,
      base.bitsPerWeight?.toFixed(3) ?? '-',
      perplexityOf(base).toFixed(3),
      `${signed(rise.mean)} ± ${rise.error.toFixed(4)}`,
    ]),
  ];
}

/** The plot of a model: perplexity over true bits. */
export function packingPlot(model: string, rows: readonly RowResult[]): string {
  const curve = (name: string, holds: (row: RowResult) => boolean): Curve => ({
    name,
    points: rows
      .filter((row) => row.bitsPerWeight !== null && row.bitsPerWeight < 6 && holds(row))
      .map((row) => [row.bitsPerWeight ?? 0, perplexityOf(row)] as const),
  });
  const isCompact = ({ name }: RowResult): boolean => name.endsWith(', compact');
  const uniform = (name: string, quantizer: string, compact = false): Curve =>
    curve(
      name,
      (row) => row.kind === 'uniform' && row.quantizer === quantizer && isCompact(row) === compact,
    );
  const mixed = (name: string): Curve =>
    curve(name, (row) => row.quantizer === SEARCHED && row.name === `${name}, knapsack, compact`);
  const curves = [
    uniform('one width, two f16', SEARCHED),
    uniform('one width, compact', SEARCHED, true),
    uniform('by magnitude, compact', BY_MAGNITUDE, true),
    curve('types of llama.cpp', (row) => row.kind === 'llama.cpp'),
    mixed('outputError'),
    mixed('imatrix error'),
    mixed('mopeq'),
    mixed('activationFrequency'),
    mixed('measured loss'),
  ].filter(({ points }) => points.length > 0);
  return curvePlot(curves, {
    title: `${model}: perplexity by true bits a weight`,
    xTitle: 'bits a weight, scales and minimums counted',
    format: (value) => value.toPrecision(3),
  });
}

/** Writes `packing.json`, `packing.md` and a plot for each model; gives the folder. */
export async function writePackingReport(
  folder: string,
  models: readonly string[],
): Promise<string> {
  await mkdir(folder, { recursive: true });
  const sections: string[] = ['# What packed weights cost\n'];
  const all: RowResult[] = [];
  for (const model of models) {
    const rows = await readRows(join(folder, model, 'rows'));
    const [first] = rows;
    if (first === undefined) continue;
    all.push(...rows);
    sections.push(
      `## ${model}\n`,
      `${first.driver}; ${first.tokens} tokens; perplexity by text.\n`,
      `${toMarkdown(wholeTable(rows))}\n`,
      '### Mixed beside uniform\n',
      `${toMarkdown(mixedTable(rows))}\n`,
    );
    await writeFile(join(folder, `packing-${model}.svg`), packingPlot(model, rows));
  }
  await writeFile(join(folder, 'packing.json'), `${JSON.stringify(all, undefined, 1)}\n`);
  await writeFile(join(folder, 'packing.md'), sections.join('\n'));
  return folder;
}

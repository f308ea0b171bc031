/**
 * Packs tiny-moe with a width for each expert and prints what every way to choose them costs.
 *
 * `--quick` runs a few rows; `--windows N` and `--bytes N` set the evaluation text; `--compact`
 * stores scales and minimums in 16 bits; `--workers N` packs on that many threads.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createGpu } from '@vramkit/adapter';
import { openDevice } from '@vramkit/core';
import { study, type StudyRow } from './study.js';

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    windows: { type: 'string', default: '12' },
    bytes: { type: 'string', default: '513' },
    compact: { type: 'boolean', default: false },
    workers: { type: 'string', default: String(Math.min(availableParallelism(), 8)) },
  },
});

const HEAD = ['widths', 'quantizer', 'group', 'bits/weight', 'file', 'MSE', 'SQNR', 'perplexity'];
const SIZES = [40, 22, 10, 12, 10, 10, 9, 10] as const;
const line = (cells: readonly string[]): string =>
  cells
    .map((cell, i) => (i < 3 ? cell.padEnd(SIZES[i] ?? 0) : cell.padStart(SIZES[i] ?? 0)))
    .join(' ');

function print(row: StudyRow): void {
  const cells = [
    row.widths,
    row.quantizer,
    row.group,
    row.bitsPerWeight.toFixed(3),
    `${(row.fileBytes / 1e6).toFixed(2)} MB`,
    row.mse.toExponential(2),
    `${row.sqnrDb.toFixed(2)} dB`,
    row.perplexity.toFixed(4),
  ];
  process.stdout.write(`${line(cells)}\n`);
}

const { gpu, adapter, driver } = await createGpu();
using device = await openDevice({ gpu });
const workFolder = await mkdtemp(join(tmpdir(), 'vramkit-moe-pack-'));
process.stdout.write(`tiny-moe on ${adapter} (${driver})\n${line(HEAD)}\n`);
try {
  await study(device, {
    folder: fileURLToPath(new URL('../../../tools/models/tiny-moe/', import.meta.url)),
    workFolder,
    windows: Number(values.windows),
    windowBytes: Number(values.bytes),
    quick: values.quick,
    factors: values.compact ? 'compact' : 'f16',
    workers: Number(values.workers),
    onRow: print,
    onCorrelations: (report) => {
      const text = report.map(({ score, correlation }) => `${score} ${correlation.toFixed(3)}`);
      process.stdout.write(`rank correlation with output error at 2 bits: ${text.join(', ')}\n`);
    },
  });
} finally {
  await rm(workFolder, { recursive: true });
}

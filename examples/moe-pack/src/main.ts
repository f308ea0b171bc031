/** The study of tiny-moe on a terminal: `npm run moe-pack -- --help`. */
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createGpu, programOptions } from '@vramkit/adapter';
import { openDevice } from '@vramkit/core';
import { study, type StudyRow } from './study.js';

const HELP = `Packs tiny-moe with a width for each expert; prints what ways to choose them cost.

usage: npm run moe-pack -- [options]

  --quick       a few rows
  --windows N   windows of evaluation text (default: 12)
  --bytes N     bytes of a window (default: 513)
  --compact     scales and minimums in 16 bits
  --workers N   threads that pack (default: one for each core, at most 8)`;

const options = programOptions(HELP, {
  quick: false,
  windows: 12,
  bytes: 513,
  compact: false,
  workers: Math.min(availableParallelism(), 8),
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
    windows: options.windows,
    windowBytes: options.bytes,
    quick: options.quick,
    factors: options.compact ? 'compact' : 'f16',
    workers: options.workers,
    onRow: print,
    onCorrelations: (report) => {
      const text = report.map(({ score, correlation }) => `${score} ${correlation.toFixed(3)}`);
      process.stdout.write(`rank correlation with output error at 2 bits: ${text.join(', ')}\n`);
    },
  });
} finally {
  await rm(workFolder, { recursive: true });
}

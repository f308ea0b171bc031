/**
 * The study of packing: `npm run study -- packing`. What every way of storing the weights costs, by
 * true bits, on both models.
 */
import { resolve } from 'node:path';
import { createGpu, parseFlags } from '@vramkit/adapter';
import { installPeers } from '@vramkit/bench';
import { openDevice } from '@vramkit/core';
import { loadDocuments } from '../documents.js';
import { writePackingReport } from './report.js';
import { runPacking } from './run.js';

const HELP = `What packed weights cost, by true bits a weight.

usage: npm run study -- packing [options]

  --model NAME[,NAME...]      smollm2, tiny-moe (default: both)
  --out FOLDER                results, tables and plots (default: reports/packing-study)
  --rows REGEXP               only rows whose quantizer, widths and target match
  --report                    write tables and plots from the results that are there, run nothing

Results are kept row by row: a study that was stopped goes on where it was.
`;

/** Runs the command line; resolves with the exit code. */
export async function packingMain(args: readonly string[], from: string): Promise<number> {
  const { values } = parseFlags({
    args: [...args],
    options: {
      model: { type: 'string', default: 'tiny-moe,smollm2' },
      out: { type: 'string', default: 'reports/packing-study' },
      rows: { type: 'string', default: '' },
      report: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const log = (line: string): void => void process.stdout.write(`${line}\n`);
  if (values.help) {
    log(HELP);
    return 0;
  }
  const folder = resolve(from, values.out);
  const models = values.model.split(',');
  if (!values.report) {
    const controller = new AbortController();
    process.once('SIGINT', () => controller.abort());
    const documents = await loadDocuments(8, log);
    await installPeers(log);
    const { gpu, adapter, driver } = await createGpu();
    using device = await openDevice({ gpu });
    const { signal } = controller;
    const only = new RegExp(values.rows);
    const options = { folder, only, driver: `${adapter} (${driver})`, log, signal };
    for (const model of models) await runPacking(device, model, documents, options);
  }
  log(`Tables and plots: ${await writePackingReport(folder, models)}`);
  return 0;
}

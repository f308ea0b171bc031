/**
 * The studies: `npm run study -- eviction` and `npm run study -- packing`.
 */
import { createGpu } from '@vramkit/adapter';
import { isVramError, openDevice } from '@vramkit/core';
import { loadDocuments } from './documents.js';
import { HELP, parseOptions } from './options.js';
import { packingMain } from './packing/main.js';
import { reportModel } from './report/sections.js';
import { writeReport } from './report/write-report.js';
import { storeOf, studyModel } from './study.js';

/** Runs the command line; resolves with the exit code. */
async function main(args: readonly string[]): Promise<number> {
  const from = process.env['INIT_CWD'] ?? process.cwd();
  if (args[0] === 'packing') return packingMain(args.slice(1), from);
  const options = parseOptions(args, from);
  if (options === 'help') {
    process.stdout.write(HELP);
    return 0;
  }
  const log = (line: string): void => void process.stdout.write(`${line}\n`);
  if (!options.reportOnly) {
    const controller = new AbortController();
    process.once('SIGINT', () => controller.abort());
    const all = await loadDocuments(options.documents, log);
    const documents = all.filter(({ half }) => (options.half ?? half) === half);
    const { gpu, adapter, driver } = await createGpu();
    using device = await openDevice({ gpu });
    const { signal } = controller;
    const setup = { ...options, driver: `${adapter} (${driver})`, log, signal };
    for (const model of options.models) await studyModel(device, model, documents, setup);
  }
  const results = await Promise.all(options.models.map((each) => storeOf(options, each).all()));
  const reports = results.flatMap((each) => reportModel(each) ?? []);
  log(`Page with plots: ${await writeReport(options.folder, reports)}`);
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!isVramError(error)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = error.code === 'aborted' ? 130 : 1;
}

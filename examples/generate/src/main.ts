/**
 * The demo: a language model answers a question about a long text out of a paged KV cache, once
 * with the full cache and once under each eviction policy, and says what each cost.
 */
import { writeFile } from 'node:fs/promises';
import { createGpu } from '@vramkit/adapter';
import { isVramError, openDevice } from '@vramkit/core';
import { demo } from './demo.js';
import { checkOutputs, HELP, parseOptions } from './options.js';
import { renderHtml } from './report/html.js';
import { formatTable, summaryTable } from './report/table.js';

/** Runs the command line; resolves with the exit code. */
async function main(args: readonly string[]): Promise<number> {
  const options = parseOptions(args);
  if (options === 'help') {
    process.stdout.write(HELP);
    return 0;
  }
  await checkOutputs(options);
  const controller = new AbortController();
  process.once('SIGINT', () => controller.abort());
  const { gpu, adapter, driver } = await createGpu();
  const { gpuBudgetBytes: budgetBytes } = options;
  using device = await openDevice({ gpu, ...(budgetBytes === undefined ? {} : { budgetBytes }) });
  const report = await demo(device, `${adapter} (${driver})`, options, controller.signal);
  const { header, rows } = summaryTable(report);
  process.stdout.write(`\n${formatTable(header, rows)}\n\n`);
  await writeFile(options.reportFile, await renderHtml(report));
  process.stdout.write(`Page with plots: ${options.reportFile}\n`);
  if (options.jsonFile !== undefined) {
    await writeFile(options.jsonFile, `${JSON.stringify(report, undefined, 2)}\n`);
    process.stdout.write(`Figures: ${options.jsonFile}\n`);
  }
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!isVramError(error)) throw error;
  process.stderr.write(`${error.message}\n`);
  const codes: Readonly<Record<string, number>> = { aborted: 130, 'invalid-argument': 2 };
  process.exitCode = codes[error.code] ?? 1;
}

/**
 * One model's life under one limit of device memory: `npm run combined -- --help`.
 */
import { isVramError } from '@vramkit/core';
import { readMobyDick } from '@vramkit/example-train';
import { HELP, parseOptions } from './options.js';
import { runPipeline } from './pipeline.js';
import { summary } from './figures.js';
import { writeReport } from './report.js';

const log = (line: string): void => void process.stdout.write(`${line}\n`);

/** Runs the command line; resolves with the exit code. */
async function main(args: readonly string[]): Promise<number> {
  const folder = process.env['INIT_CWD'] ?? process.cwd();
  let options;
  try {
    options = parseOptions(args, folder);
  } catch (error) {
    if (!isVramError(error, 'invalid-argument')) throw error;
    process.stderr.write(`${error.message}\n\n${HELP}`);
    return 2;
  }
  if (options === 'help') {
    process.stdout.write(HELP);
    return 0;
  }
  const { report, record } = await runPipeline(options, { text: await readMobyDick(log), log });
  log(`\n${summary(report)}\n`);
  log(`report: ${await writeReport(options.folder, report, record)}`);
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!isVramError(error)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}

/**
 * Trains a small transformer on bytes with an optimizer whose state does not fit the device:
 * `npm run train -- --help`.
 */
import { isVramError } from '@vramkit/core';
import { HELP, parseOptions } from './options.js';
import { runCommand } from './run-command.js';

const controller = new AbortController();
process.once('SIGINT', () => controller.abort());
try {
  const options = parseOptions(process.argv.slice(2), process.env['INIT_CWD'] ?? process.cwd());
  if (options === 'help') process.stdout.write(HELP);
  else await runCommand(options, controller.signal);
} catch (error) {
  if (!isVramError(error)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}

/**
 * Entry of the command line: gives the real streams and arguments to `runCommandLine()`.
 *
 * The exit code is set and Node ends by itself, so that output still in a pipe is not cut off.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { runCommandLine } from './command-line.js';
import { completion } from './commands/completion.js';
import { doctor } from './commands/doctor.js';
import { inspect } from './commands/inspect.js';
import { pack } from './commands/pack.js';
import { plan } from './commands/plan.js';
import { store } from './commands/store.js';
import { trace } from './commands/trace.js';

// Our own package.json, which has a version.
const description = JSON.parse(
  readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
) as { version: string };

// A reader that has seen enough, such as head, closes the pipe: that is no failure.
process.stdout.on('error', (error: Error & { readonly code?: string }) => {
  process.exit(error.code === 'EPIPE' ? 0 : 1);
});

const commands = [doctor, pack, inspect, plan, trace, store];
void runCommandLine(process.argv.slice(2), [...commands, completion(commands)], {
  input: process.stdin,
  out: (text) => void process.stdout.write(text),
  bytes: async (chunk) => {
    if (!process.stdout.write(chunk)) await once(process.stdout, 'drain');
  },
  err: (text) => void process.stderr.write(text),
  colours: process.stdout.isTTY && !process.env['NO_COLOR'] && process.env['TERM'] !== 'dumb',
  interactive: process.stderr.isTTY,
  columns: process.stderr.isTTY ? process.stderr.columns : 80,
  version: description.version,
}).then((exitCode) => {
  process.exitCode = exitCode;
});

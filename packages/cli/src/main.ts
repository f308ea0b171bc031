/**
 * Entry of the command line: gives the real streams and arguments to `runCommandLine()`.
 *
 * The exit code is set and Node ends by itself, so that output still in a pipe is not cut off.
 */
import { readFileSync } from 'node:fs';
import { runCommandLine } from './command-line.js';
import { doctor } from './commands/doctor.js';
import { inspect } from './commands/inspect.js';
import { pack } from './commands/pack.js';
import { plan } from './commands/plan.js';

// Our own package.json, which has a version.
const description = JSON.parse(
  readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
) as { version: string };

void runCommandLine(process.argv.slice(2), [doctor, pack, inspect, plan], {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  colours: process.stdout.isTTY && !process.env['NO_COLOR'] && process.env['TERM'] !== 'dumb',
  interactive: process.stderr.isTTY,
  version: description.version,
}).then((exitCode) => {
  process.exitCode = exitCode;
});

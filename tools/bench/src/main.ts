/**
 * Runs one benchmark: `npm run bench -- NAME [--only PART] [--json FILE] [--quick]`; without a name
 * all of them, into `bench-results.json` and `bench-results.html` where the person is.
 *
 * A benchmark is a file `<name>.bench.ts` beside this one; nothing else lists them.
 */
import { readdirSync } from 'node:fs';
import { parseCommandLine } from './command-line.js';
import type { Bench, CommandLine } from './command-line.js';
import { formatResults, writeResults } from './report.js';
import { runAll } from './run-all.js';

const suffix = '.bench.ts';
const names = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith(suffix))
  .map((file) => file.slice(0, -suffix.length))
  .sort();

function isBench(module: object): module is Bench {
  return 'question' in module && 'run' in module && typeof module.run === 'function';
}

async function runBench(name: string, { quick, only, json }: CommandLine): Promise<void> {
  const module: unknown = await import(new URL(`${name}${suffix}`, import.meta.url).href);
  if (typeof module !== 'object' || module === null || !isBench(module)) {
    throw new TypeError(`${name}${suffix} exports no question and run`);
  }
  const { parts = [] } = module;
  if (only !== undefined && !parts.includes(only)) {
    fail(`${name} has no part '${only}'; its parts: ${parts.join(', ') || 'none'}`);
  }
  console.log(module.question);
  const results = await module.run({ quick, only, log: (line) => console.log(line) });
  console.log(`\n${formatResults(results)}`);
  if (json === undefined) return;
  await writeResults(json, results);
  console.log(`\nwrote ${json}`);
}

const usage = `usage: npm run bench -- [NAME [--only PART] [--json FILE]] [--quick]

  NAME          ${names.slice(0, 5).join(', ')},
                ${names.slice(5).join(', ')}
                (default: all, into bench-results.json and .html)
  --only PART   a part of it, where it has parts
  --json FILE   writes the figures there too
  --quick       smaller workloads, fewer rivals`;

function fail(problem: string): never {
  console.error(`${problem}\n\n${usage}`);
  process.exit(2);
}

function readLine(folder: string): CommandLine {
  try {
    return parseCommandLine(process.argv.slice(2), folder);
  } catch (error) {
    return fail(error instanceof Error ? error.message : String(error));
  }
}

const here = process.env['INIT_CWD'] ?? process.cwd();
const line = readLine(here);
if (line.help) {
  console.log(usage);
} else if (line.name === undefined && line.only === undefined && line.json === undefined) {
  const log = (text: string): void => console.log(text);
  const failed = await runAll(names, { quick: line.quick, folder: here, log });
  if (failed.length > 0) process.exitCode = 1;
} else if (line.name !== undefined && names.includes(line.name)) {
  await runBench(line.name, line);
} else {
  fail(line.name === undefined ? 'no benchmark named' : `no benchmark '${line.name}'`);
}
// Dawn keeps the process alive for as long as its entry point is reachable.
process.exit();

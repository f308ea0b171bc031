/**
 * Every benchmark, each in a process of its own and one after the other, into one file and one
 * page. One that fails is said and the others run; its reason stands in both.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { cpus, release, tmpdir, totalmem, type } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { renderPage, type BenchRun, type SuiteRun } from './page.js';
import type { BenchResult } from './report.js';

/** Options of {@link runAll}. */
export interface RunAllOptions {
  /** Smaller workloads. */
  readonly quick: boolean;
  /** Where `bench-results.json` and `bench-results.html` go. */
  readonly folder: string;
  /** Tells the person at the terminal what goes on. */
  readonly log: (line: string) => void;
}

async function runOne(name: string, { quick, log }: RunAllOptions): Promise<SuiteRun> {
  const folder = await mkdtemp(join(tmpdir(), 'vramkit-bench-all-'));
  const json = join(folder, 'results.json');
  const start = performance.now();
  try {
    const entry = fileURLToPath(new URL('main.ts', import.meta.url));
    const args = [...process.execArgv, entry, name, '--json', json, ...(quick ? ['--quick'] : [])];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let text = '';
    let errors = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      for (const line of chunk.split('\n')) if (line !== '') log(`  ${line}`);
    });
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      errors = (errors + chunk).slice(-2000);
    });
    const [code] = (await once(child, 'close')) as [number | null];
    const seconds = (performance.now() - start) / 1e3;
    const question = text.split('\n')[0] ?? '';
    if (code !== 0) {
      const error =
        errors
          .trim()
          .split('\n')
          .find((line) => /Error/.test(line)) ?? errors.trim();
      return { name, question, seconds, results: [], error: error || `code ${String(code)}` };
    }
    // The file that writeResults() wrote.
    const { results } = JSON.parse(await readFile(json, 'utf8')) as { results: BenchResult[] };
    return { name, question, seconds, results };
  } finally {
    await rm(folder, { recursive: true });
  }
}

/**
 * Runs all of `names` and writes both files.
 * @returns Names of those that failed.
 */
export async function runAll(names: readonly string[], options: RunAllOptions): Promise<string[]> {
  const { quick, folder, log } = options;
  const startedAt = new Date().toISOString();
  const start = performance.now();
  const suites: SuiteRun[] = [];
  for (const name of names) {
    log(`${name} (${suites.length + 1} of ${names.length})`);
    const suite = await runOne(name, options);
    suites.push(suite);
    const end = suite.error === undefined ? 'done' : `FAILED: ${suite.error}`;
    log(`${name}: ${end} in ${suite.seconds.toFixed(0)} s`);
  }
  const processors = cpus();
  const machine = {
    processor: processors[0]?.model.trim() ?? 'unknown',
    processors: processors.length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    system: `${type()} ${release()} ${process.arch}`,
    node: process.versions.node,
  };
  const seconds = (performance.now() - start) / 1e3;
  const run: BenchRun = { machine, startedAt, seconds, quick, suites };
  await writeFile(join(folder, 'bench-results.json'), `${JSON.stringify(run, null, 2)}\n`);
  await writeFile(join(folder, 'bench-results.html'), renderPage(run));
  log(`wrote bench-results.json and bench-results.html in ${seconds.toFixed(0)} s`);
  return suites.filter(({ error }) => error !== undefined).map(({ name }) => name);
}

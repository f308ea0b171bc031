/**
 * Command line of this package: `fetch NAME` puts a model into the cache and prints its path,
 * `list` prints the names and what is cached.
 */
import { cachedModelPath, MODEL_NAMES, resolveModel } from './resolve-model.js';
import type { ModelProgress } from './source.js';

const showProgress: ModelProgress = (doneBytes, totalBytes, stage) => {
  if (!process.stderr.isTTY) return;
  const percent = Math.floor((100 * doneBytes) / totalBytes);
  process.stderr.write(`\r${stage}: ${percent} % of ${totalBytes} B   `);
};

async function main(args: readonly string[]): Promise<number> {
  const [command, name] = args;
  if (command === 'list') {
    for (const known of MODEL_NAMES) {
      const path = known === 'tiny-moe' ? (await resolveModel(known)).path : undefined;
      process.stdout.write(
        `${known}\t${path ?? (await cachedModelPath(known)) ?? 'not fetched'}\n`,
      );
    }
    return 0;
  }
  if (command !== 'fetch' || name === undefined) {
    process.stderr.write(`usage: fetch NAME | list\nnames: ${MODEL_NAMES.join(', ')}\n`);
    return 2;
  }
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort());
  try {
    const options = { onProgress: showProgress, signal: interrupt.signal };
    const { path } = await resolveModel(name, options);
    if (process.stderr.isTTY) process.stderr.write('\n');
    process.stdout.write(`${path}\n`);
    return 0;
  } catch (error) {
    process.stderr.write(`\n${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  }
}

process.exitCode = await main(process.argv.slice(2));

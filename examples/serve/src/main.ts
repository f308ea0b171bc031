/**
 * Opens a model, makes a batch engine and listens until it is interrupted.
 */
import { basename } from 'node:path';
import { createGpu } from '@vramkit/adapter';
import { isVramError, openDevice } from '@vramkit/core';
import {
  loadTokenizer,
  openModelFile,
  type KvStoreOptions,
  type ModelFile,
} from '@vramkit/example-runtime';
import { resolveModel } from '@vramkit/models';
import { openStore } from '@vramkit/storage/store-url';
import { drain, interrupted } from './drain.js';
import { loadWeights, openEngine } from './open-engine.js';
import { HELP, parseOptions, type ServeOptions } from './options.js';
import { openPrefixes } from './prefixes.js';
import { createServer } from './server.js';

/** The store of prefixes that was asked for; disposing it ends its connections. */
async function openKvPrefixes(
  { kvStore: address, kvStoreBytes: budgetBytes, blockSize }: ServeOptions,
  file: ModelFile,
): Promise<{ readonly kvStore?: KvStoreOptions } & AsyncDisposable> {
  if (address === undefined) return { [Symbol.asyncDispose]: () => Promise.resolve() };
  const store = await openStore(address, { load: (name) => import(name), random: Math.random });
  const close = (): Promise<void> => Promise.resolve(store[Symbol.asyncDispose]());
  try {
    const kvStore = await openPrefixes(store, file, { blockSize, budgetBytes });
    return { kvStore, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Runs the command line; resolves with the exit code once the server is closed. */
async function main(args: readonly string[]): Promise<number> {
  const options = parseOptions(args, process.env);
  if (options === 'help') {
    process.stdout.write(HELP);
    return 0;
  }
  const { path } = await resolveModel(options.model);
  const { gpu, adapter, driver } = await createGpu();
  const { gpuBudgetBytes: budgetBytes, apiKey } = options;
  using device = await openDevice({ gpu, ...(budgetBytes === undefined ? {} : { budgetBytes }) });
  const file = await openModelFile(path);
  // Experts that are not resident are read while requests run.
  await using _open = { [Symbol.asyncDispose]: () => file.close() };
  const tokenizer = await loadTokenizer(file);
  await using opened = await openKvPrefixes(options, file);
  using model = await loadWeights(device, file, options);
  const { kvStore } = opened;
  await using engine = await openEngine(device, model, { ...options, kvStore });
  const name = options.model === path ? basename(path) : options.model;
  const app = createServer(engine, tokenizer, {
    model: name,
    ...(apiKey === undefined ? {} : { apiKey }),
  });
  const address = await app.listen({ host: options.host, port: options.port });
  // Until here, a signal ends the process at once.
  const signal = interrupted();
  const { capacityTokens } = engine;
  process.stdout.write(`${name} on ${adapter} (${driver}), KV cache of ${capacityTokens} tokens\n`);
  process.stdout.write(`listening at ${address}\n`);
  await signal;
  process.stdout.write('ending, requests that run have 5 s; interrupt again to end at once\n');
  await drain(app, engine);
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!isVramError(error) && !(error instanceof Error && 'syscall' in error)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = isVramError(error, 'invalid-argument') ? 2 : 1;
}

/**
 * One process of the example: a model, an engine, and the shared blocks behind it.
 *
 * `worker.ts MODEL [INDEX BLOBS [DRIVERS]]` reads a prompt per line of standard input and prints an
 * answer per line, as JSON, once its blocks are stored. Without an index it computes all of every
 * prompt. DRIVERS is a folder below which the driver of the blobs' store is installed.
 */
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { createGpu } from '@vramkit/adapter';
import { openDevice } from '@vramkit/core';
import {
  createBatchEngine,
  loadModel,
  loadTokenizer,
  modelFingerprint,
  openModelFile,
} from '@vramkit/example-runtime';
import { resolveModel } from '@vramkit/models';
import { openStore } from '@vramkit/storage/store-url';
import pg from 'pg';
import { PrefixIndex } from './prefix-index.js';
import { CLAIM_MS, SharedBlocks } from './shared-blocks.js';

/** What a worker prints for each prompt. */
export interface WorkerAnswer {
  readonly text: string;
  readonly promptTokens: number;
  /** Tokens of the prompt that were loaded from the shared blocks. */
  readonly restoredTokens: number;
  readonly firstTokenMs: number;
}

const [modelName = 'tiny-moe', connectionString, blobs = '', drivers] = process.argv.slice(2);

function load(name: string): Promise<unknown> {
  if (drivers === undefined) return import(name);
  const path = createRequire(join(resolve(drivers), 'package.json')).resolve(name);
  return import(pathToFileURL(path).href);
}

async function openShared(connection: string): Promise<SharedBlocks> {
  const pool = new pg.Pool({ connectionString: connection, max: 4 });
  pool.on('error', () => undefined);
  const index = await PrefixIndex.open(pool, Math.random);
  const store = await openStore(blobs, { load, random: Math.random });
  return new SharedBlocks(store, index, { workMs: CLAIM_MS });
}

const shared = connectionString === undefined ? undefined : await openShared(connectionString);
const { gpu } = await createGpu();
using device = await openDevice({ gpu });
const file = await openModelFile((await resolveModel(modelName)).path);
const tokenizer = await loadTokenizer(file);
const model = await loadModel(device, file);
const identity = { model: await modelFingerprint(file), dtype: 'f16', blockSize: 16 } as const;
process.stdout.write('ready\n');

for await (const prompt of createInterface({ input: process.stdin })) {
  // An engine per prompt: nothing but the shared blocks goes from one to the next.
  const engine = createBatchEngine(device, model, {
    kvTokens: 1024,
    kvStore: shared === undefined ? undefined : { blocks: shared, identity },
  });
  const tokens = tokenizer.encode(prompt);
  const begin = performance.now();
  let firstTokenMs: number | undefined;
  const ids: number[] = [];
  for await (const id of engine.submit(tokens, { maxTokens: 8 })) {
    firstTokenMs ??= performance.now() - begin;
    ids.push(id);
  }
  await engine.dispose();
  await shared?.collect();
  const { restoredTokens } = engine.metrics();
  const answer: WorkerAnswer = {
    text: tokenizer.decode(ids),
    promptTokens: tokens.length,
    restoredTokens,
    firstTokenMs: firstTokenMs ?? NaN,
  };
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
model.dispose();
await file.close();
process.exit(); // Dawn and the pool keep the process alive

/**
 * Program: a process that starts anew answers with the prefix that another one stored.
 *
 * `npx nx run @vramkit/example-serve:check-kv-store -- --model smollm2 --tokens 1500`
 *
 * It runs itself twice as a child over one store: the first process prefills the prompt and stores
 * its blocks, the second loads them. Each says how long its first token took from the submission
 * on (opening the store included, the model's loading not), and what it answered. Before that both
 * answer another prompt, so that neither pays for compiling kernels. Ends with 0 where the tokens
 * are equal and the second is `--least` times as fast or more.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createGpu, programOptions } from '@vramkit/adapter';
import { openDevice } from '@vramkit/core';
import {
  createBatchEngine,
  loadModel,
  loadTokenizer,
  modelFingerprint,
  openKvStore,
  openModelFile,
  type Generation,
} from '@vramkit/example-runtime';
import { resolveModel } from '@vramkit/models';
import { openStore } from '@vramkit/storage/store-url';

interface Answer {
  readonly firstTokenMs: number;
  readonly promptTokens: number;
  readonly restoredTokens: number;
  readonly ids: readonly number[];
  readonly driver: string;
}

const SENTENCE =
  'The harbour master wrote down every ship that came in: her name, her flag, what she carried, ' +
  'how many days she had been at sea, and whether her crew had seen whales on the way. ';

const HELP = `Time to the first token of a second process over one store, beside the first one's.

usage: npx nx run @vramkit/example-serve:check-kv-store -- [options]

  --model NAME     smollm2, tiny-moe or a path (default: smollm2)
  --tokens N       of the prompt (default: 1500)
  --answer N       tokens of the answer (default: 16)
  --least N        times as fast, or it fails (default: 5)
  --store URL      answer once over this store, and print it as JSON`;

const options = programOptions(HELP, {
  model: 'smollm2',
  tokens: 1500,
  answer: 16,
  least: 5,
  store: undefined,
});

async function collect(generation: Generation, begin: number): Promise<[number, number[]]> {
  const ids: number[] = [];
  let firstTokenMs = 0;
  for await (const id of generation) {
    if (ids.length === 0) firstTokenMs = performance.now() - begin;
    ids.push(id);
  }
  return [firstTokenMs, ids];
}

/** One process: answers over the store. */
async function answer(address: string): Promise<Answer> {
  const { gpu, driver } = await createGpu();
  using device = await openDevice({ gpu });
  const file = await openModelFile((await resolveModel(options.model)).path);
  const tokenizer = await loadTokenizer(file);
  const model = await loadModel(device, file);
  const fingerprint = await modelFingerprint(file);
  const promptTokens = options.tokens;
  const text = SENTENCE.repeat(Math.ceil(promptTokens / 16));
  const prompt = tokenizer.encode(text).slice(0, promptTokens);
  const maxTokens = options.answer;
  const kvTokens = promptTokens + maxTokens + 512;
  const warmUp = createBatchEngine(device, model, { kvTokens });
  await collect(warmUp.submit(prompt.slice(-200), { maxTokens: 2 }), 0);
  await warmUp.dispose();
  const begin = performance.now();
  await using store = await openStore(address, {
    load: (name) => import(name),
    random: Math.random,
  });
  const kvStore = await openKvStore(store, file, { model: fingerprint });
  const engine = createBatchEngine(device, model, { kvTokens, kvStore });
  const [firstTokenMs, ids] = await collect(engine.submit(prompt, { maxTokens }), begin);
  await engine.dispose();
  model.dispose();
  await file.close();
  const { restoredTokens } = engine.metrics();
  return { firstTokenMs, promptTokens: prompt.length, restoredTokens, ids, driver };
}

/** A process of its own over the store; gives what it printed. */
function spawnAnswer(address: string): Answer {
  const args = [...process.execArgv, ...process.argv.slice(1), '--store', address];
  const { stdout, status } = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (status !== 0) throw new Error(`the process ended with ${status}`);
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Answer; // of this very file
}

if (options.store !== undefined) {
  process.stdout.write(`${JSON.stringify(await answer(options.store))}\n`);
  process.exit(); // Dawn keeps the process alive for as long as its entry point is reachable
}
const folder = mkdtempSync(join(tmpdir(), 'vramkit-kv-store-'));
try {
  const [cold, warm] = [spawnAnswer(folder), spawnAnswer(folder)];
  const ratio = cold.firstTokenMs / warm.firstTokenMs;
  const isSame = cold.ids.join() === warm.ids.join() && cold.ids.length > 0;
  process.stdout.write(
    `${options.model} on ${cold.driver}, a prompt of ${cold.promptTokens} tokens\n` +
      `first process:  ${cold.firstTokenMs.toFixed(0)} ms to the first token, all computed\n` +
      `second process: ${warm.firstTokenMs.toFixed(0)} ms, ${warm.restoredTokens} tokens loaded\n` +
      `${ratio.toFixed(1)} times less; tokens ${isSame ? 'identical' : 'DIFFER'}\n`,
  );
  process.exitCode = isSame && ratio >= options.least ? 0 : 1;
} finally {
  rmSync(folder, { recursive: true });
}

/** A server that ends lets requests finish, tells the others, and waits for no idle client. */
import { createGpu } from '@vramkit/adapter';
import { openDevice, type VramDevice } from '@vramkit/core';
import {
  createBatchEngine,
  loadModel,
  loadTokenizer,
  openModelFile,
  type LanguageModel,
  type Tokenizer,
} from '@vramkit/example-runtime';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { drain, type DrainOptions } from './drain.js';
import { createServer } from './server.js';

const folder = new URL('../../../tools/models/tiny-moe/', import.meta.url).pathname;
let device: VramDevice;
let model: LanguageModel;
let tokenizer: Tokenizer;

beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
  const file = await openModelFile(folder);
  tokenizer = await loadTokenizer(file);
  model = await loadModel(device, file).finally(() => file.close());
});
afterAll(() => {
  model.dispose();
  device.dispose();
});

/** Answers of a whole and of a streamed request that run when the server is told to end. */
async function answersAtEnd(maxTokens: number, options: DrainOptions): Promise<[Response, string]> {
  const engine = createBatchEngine(device, model, { kvTokens: 2048, maxSequences: 2 });
  const app = createServer(engine, tokenizer, { model: 'tiny-moe' });
  const address = await app.listen({ host: '127.0.0.1', port: 0 });
  // Its connection stays open.
  await (await fetch(`${address}/health`)).text();
  const ask = (stream: boolean): Promise<Response> =>
    fetch(`${address}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'tiny-moe', prompt: 'And ', max_tokens: maxTokens, stream }),
    });
  const streamed = await ask(true);
  const whole = ask(false);
  while (engine.metrics().running < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  const ended = drain(app, engine, options);
  const answers: [Response, string] = [await whole, await streamed.text()];
  await ended;
  await expect(fetch(`${address}/health`)).rejects.toThrow();
  return answers;
}

it('lets requests finish within the grace period, and no longer than they take', async () => {
  const begin = performance.now();
  const [whole, events] = await answersAtEnd(24, { graceMs: 300_000 });
  expect(whole.status).toBe(200);
  expect(events).toContain('"finish_reason":"length"');
  expect(events).toMatch(/data: \[DONE\]\n\n$/);
  expect(performance.now() - begin).toBeLessThan(60_000);
});

it('tells those that run longer', async () => {
  const [whole, events] = await answersAtEnd(900, { graceMs: 1, flushMs: 60_000 });
  expect(whole.status).toBe(503);
  expect(await whole.json()).toMatchObject({ error: { code: 'unavailable' } });
  expect(events).toMatch(/data: \{"error":\{.*"code":"unavailable".*\n\ndata: \[DONE\]\n\n$/);
  expect(events).not.toContain('"finish_reason":"stop"');
});

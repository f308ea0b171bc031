/** The server over tiny-moe, driven by npm `openai` and by plain HTTP. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { createGpu } from '@vramkit/adapter';
import { openDevice, type VramDevice } from '@vramkit/core';
import {
  createBatchEngine,
  loadModel,
  loadTokenizer,
  openModelFile,
  type BatchEngine,
  type LanguageModel,
  type Tokenizer,
} from '@vramkit/example-runtime';
import type { FastifyInstance } from 'fastify';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createServer } from './server.js';
import { compareSharedPrefix, metricValue } from './shared-prefix.js';

const folder = new URL('../../../tools/models/tiny-moe/', import.meta.url);
const KEY = 'secret';

let device: VramDevice;
let model: LanguageModel;
let tokenizer: Tokenizer;
let engine: BatchEngine;
let app: FastifyInstance;
let address: string;
let client: OpenAI;

beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
  const file = await openModelFile(folder.pathname);
  tokenizer = await loadTokenizer(file);
  model = await loadModel(device, file).finally(() => file.close());
  engine = createBatchEngine(device, model, { kvTokens: 2048, maxSequences: 8 });
  const options = { model: 'tiny-moe', apiKey: KEY, bodyLimitBytes: 4096, requestTimeoutMs: 500 };
  app = createServer(engine, tokenizer, options);
  address = await app.listen({ host: '127.0.0.1', port: 0 });
  client = new OpenAI({ baseURL: `${address}/v1`, apiKey: KEY, maxRetries: 0 });
});
afterAll(async () => {
  await app.close();
  await engine.dispose();
  model.dispose();
  device.dispose();
});

const prompt = 'And the LORD said unto ';
const greedy = { model: 'tiny-moe', prompt, max_tokens: 16, temperature: 0 };

function post(body: unknown, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${address}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${KEY}`, ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
}

async function metrics(): Promise<string> {
  const response = await fetch(`${address}/metrics`, {
    headers: { authorization: `Bearer ${KEY}` },
  });
  return response.text();
}

/** Waits until no request holds blocks. */
async function settled(): Promise<void> {
  for (let i = 0; i < 6000 && engine.metrics().running + engine.metrics().waiting > 0; i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  expect(engine.metrics()).toMatchObject({ running: 0, waiting: 0, usage: 0 });
}

describe('a client of npm openai', () => {
  it('lists the model', async () => {
    const { data } = await client.models.list();
    expect(data.map(({ id }) => id)).toEqual(['tiny-moe']);
    expect((await client.models.retrieve('tiny-moe')).object).toBe('model');
  });

  it('gets the same completion whole and streamed, with its usage', async () => {
    const whole = await client.completions.create(greedy);
    expect(whole.choices).toHaveLength(1);
    expect(whole.choices[0]?.finish_reason).toBe('length');
    expect(whole.usage).toMatchObject({ prompt_tokens: prompt.length, completion_tokens: 16 });
    let text = '';
    let usage: OpenAI.CompletionUsage | null | undefined;
    const stream = await client.completions.create({
      ...greedy,
      stream: true,
      stream_options: { include_usage: true },
    });
    for await (const event of stream) {
      text += event.choices[0]?.text ?? '';
      usage = event.usage;
    }
    expect(text).toBe(whole.choices[0]?.text);
    expect(usage).toMatchObject({ completion_tokens: 16 });
    expect(usage?.prompt_tokens_details?.cached_tokens).toBe(16);
  });

  it('gets several choices, stops at a string, and repeats a seed', async () => {
    const sampled = { ...greedy, temperature: 1, seed: 7, n: 3 };
    const first = await client.completions.create(sampled);
    const second = await client.completions.create(sampled);
    const texts = first.choices.map(({ text }) => text);
    expect(second.choices.map(({ text }) => text)).toEqual(texts);
    expect(new Set(texts).size).toBe(3);
    const whole = (await client.completions.create(greedy)).choices[0]?.text ?? '';
    const stop = whole.slice(6, 9);
    const stopped = (await client.completions.create({ ...greedy, stop })).choices[0];
    expect(stopped?.text).toBe(whole.slice(0, whole.indexOf(stop)));
    expect(stopped?.finish_reason).toBe('stop');
  });

  it('gets no text for no tokens, whole or streamed', async () => {
    const none = { ...greedy, max_tokens: 0 };
    const whole = await client.completions.create(none);
    expect(whole.choices).toMatchObject([{ text: '', finish_reason: 'length' }]);
    expect(whole.usage).toMatchObject({ prompt_tokens: prompt.length, completion_tokens: 0 });
    const ends: unknown[] = [];
    for await (const { choices } of await client.completions.create({ ...none, stream: true })) {
      ends.push(...choices.map(({ text, finish_reason }) => [text, finish_reason]));
    }
    expect(ends).toEqual([['', 'length']]);
  });

  it('takes prompts as token ids and in lists', async () => {
    const ids = [...new TextEncoder().encode(prompt)];
    const { choices } = await client.completions.create({ ...greedy, prompt: [ids, ids] });
    const { choices: expected } = await client.completions.create(greedy);
    expect(choices.map(({ text }) => text)).toEqual([expected[0]?.text, expected[0]?.text]);
  });

  it('is told the cached tokens of all prompts, each once', async () => {
    const { usage } = await client.completions.create({ ...greedy, prompt: ['A', prompt], n: 2 });
    expect(usage?.prompt_tokens).toBe(1 + prompt.length);
    expect(usage?.prompt_tokens_details?.cached_tokens).toBe(16);
  });

  it('is told what is wrong with a request', async () => {
    await expect(client.completions.create({ ...greedy, model: 'other' })).rejects.toMatchObject({
      status: 404,
      code: 'model_not_found',
    });
    const chat = { model: 'tiny-moe', messages: [{ role: 'user' as const, content: 'Hello' }] };
    await expect(client.chat.completions.create(chat)).rejects.toMatchObject({ status: 400 });
    const stranger = new OpenAI({ baseURL: `${address}/v1`, apiKey: 'wrong', maxRetries: 0 });
    await expect(stranger.models.list()).rejects.toMatchObject({ status: 401 });
  });
});

describe('bad input', () => {
  it.each([
    ['malformed JSON', '{"model": ', 400],
    ['no JSON object', '[]', 400],
    ['a missing prompt', { model: 'tiny-moe' }, 400],
    ['a number as a string', { ...greedy, max_tokens: '16' }, 400],
    ['a negative max_tokens', { ...greedy, max_tokens: -1 }, 400],
    ['an absurd max_tokens', { ...greedy, max_tokens: 1e9 }, 400],
    ['a max_tokens that is no integer', { ...greedy, max_tokens: 1.5 }, 400],
    ['a temperature out of range', { ...greedy, temperature: 3 }, 400],
    ['an empty prompt', { ...greedy, prompt: '' }, 400],
    ['an unknown token', { ...greedy, prompt: [70_000] }, 400],
    ['a token beyond 32 bits', { ...greedy, prompt: [2 ** 32 + 1] }, 400],
    ['a token beyond integers', { ...greedy, prompt: [[65], [1e30]] }, 400],
    ['more choices than may wait', { ...greedy, prompt: Array(17).fill('a'), n: 16 }, 400],
    ['log-probabilities', { ...greedy, logprobs: 3 }, 400],
    ['a body over the limit', { ...greedy, prompt: 'x'.repeat(5000) }, 413],
  ])('answers %s', async (_name, body, status) => {
    const response = await post(body);
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({
      error: { type: 'invalid_request_error', message: expect.stringMatching(/.+/) },
    });
    await settled();
  });

  it('takes any integer for a seed', async () => {
    const answers = [-1, 2 ** 32 - 1, 2 ** 33 - 1].map(async (seed) => {
      const response = await post({ ...greedy, temperature: 1, seed });
      const { choices } = (await response.json()) as OpenAI.Completion;
      return choices[0]?.text;
    });
    const [first, ...others] = await Promise.all(answers);
    expect(first).toHaveLength(16);
    expect(others).toEqual([first, first]);
  });

  it.each([
    ['{"model": ', null, null],
    [{ model: 'tiny-moe' }, 'missing_required_parameter', 'prompt'],
    [{ ...greedy, max_tokens: '16' }, 'invalid_type', 'max_tokens'],
    [{ ...greedy, temperature: 3 }, 'invalid_value', 'temperature'],
    [{ ...greedy, stop: ['a', 1] }, 'invalid_value', 'stop'],
    ['x'.repeat(5000), null, null],
  ])('names what is wrong with %j', async (body, code, param) => {
    const answer = (await (await post(body)).json()) as { error: object };
    expect(answer.error).toMatchObject({ code, param });
  });

  it('answers a wrong method, route, type and key', async () => {
    const key = { authorization: `Bearer ${KEY}` };
    const status = async (path: string, init?: RequestInit): Promise<number> =>
      (await fetch(address + path, { headers: key, ...init })).status;
    expect(await status('/v1/completions')).toBe(404);
    expect(await status('/nothing')).toBe(404);
    expect(await status('/health', { headers: {} })).toBe(200);
    expect(await status('/health?x=1', { headers: {} })).toBe(200);
    expect(await status('/metrics', { headers: {} })).toBe(401);
    expect(await status('/metrics', { headers: { authorization: `bearer ${KEY}` } })).toBe(200);
    expect(await status('/metrics', { headers: { authorization: KEY } })).toBe(401);
    expect((await post(greedy, { authorization: 'Bearer ' })).status).toBe(401);
    expect((await post('prompt=a', { 'content-type': 'text/plain' })).status).toBe(415);
  });

  it('gives up on a client that does not finish its request', async () => {
    const socket = connect(Number(new URL(address).port), '127.0.0.1');
    socket.write(
      'POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n' +
        `authorization: Bearer ${KEY}\r\ncontent-length: 100\r\n\r\n{"mod`,
    );
    const [answer] = await once(socket, 'data');
    expect(String(answer)).toContain('408');
    socket.destroy();
    await settled();
  }, 40_000);
});

describe('under load', () => {
  it('frees the blocks of clients that leave, and does not disturb the others', async () => {
    const kept = client.completions.create({ ...greedy, max_tokens: 64 });
    const leave = new AbortController();
    const long = { ...greedy, max_tokens: 900, stream: true } as const;
    const stream = await client.completions.create(long, { signal: leave.signal });
    const whole = client.completions.create(
      { ...greedy, max_tokens: 900 },
      { signal: leave.signal },
    );
    const left = expect(whole).rejects.toThrow();
    for await (const _ of stream) break;
    leave.abort();
    await left;
    const text = (await kept).choices[0]?.text;
    await settled();
    const alone = await client.completions.create({ ...greedy, max_tokens: 64 });
    expect(text).toBe(alone.choices[0]?.text);
    expect(await metrics()).toMatch(/responses_total\{.*status="499"\} [1-9]/);
  });

  it('holds no blocks for a client that stops reading', async () => {
    const socket = connect(Number(new URL(address).port), '127.0.0.1');
    const body = JSON.stringify({ ...greedy, max_tokens: 100, stream: true });
    socket.pause();
    socket.write(
      'POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n' +
        `authorization: Bearer ${KEY}\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    await client.completions.create(greedy);
    await settled();
    socket.destroy();
  });

  it('serves 32 clients with a shared beginning as each would be served alone', async () => {
    const questions = Array.from(
      { length: 32 },
      (_, i) => `${String.fromCharCode(65 + (i % 26))}${i} `,
    );
    const shared = 'In the beginning God created the heaven and the earth. '.repeat(6);
    const load = { shared, questions, maxTokens: 12 };
    const result = await compareSharedPrefix(device, model, tokenizer, load);
    expect(result.given).toEqual(result.expected);
    const { promptTokens, sharedTokens, prefillTokens } = result;
    expect(sharedTokens).toBe(Math.floor(shared.length / 16) * 16);
    expect(prefillTokens).toBe(promptTokens - 31 * sharedTokens);
  });

  it('tells what it did in Prometheus format', async () => {
    const text = await metrics();
    const { prefillTokens, hitTokens } = engine.metrics();
    expect(metricValue(text, 'vramkit_prefill_tokens_total')).toBe(prefillTokens);
    expect(metricValue(text, 'vramkit_prefix_hit_tokens_total')).toBe(hitTokens);
    expect(text).toMatch(/^vramkit_device_bytes\{kind="kv"\} [1-9]\d+$/m);
    expect(text).toMatch(/^vramkit_time_to_first_token_seconds_count [1-9]/m);
  });
});

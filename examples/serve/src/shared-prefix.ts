/**
 * The claim of the server, as a program: many clients at once that share a long beginning get
 * exactly the tokens of unbatched generation with the full cache, and the beginning is prefilled
 * once.
 *
 * The unbatched side is a session of the runtime with one sequence at a time; the beginning is
 * prefilled once there too and forked, so that the check does not take hours on a software driver.
 */
import type { VramDevice } from '@vramkit/core';
import { full } from '@vramkit/eviction';
import {
  createBatchEngine,
  createSession,
  generate,
  type LanguageModel,
  type Tokenizer,
} from '@vramkit/example-runtime';
import OpenAI from 'openai';
import { createServer } from './server.js';

/** What is asked of both sides. */
export interface SharedPrefixLoad {
  /** The beginning that all clients share. */
  readonly shared: string;
  /** What each client adds. */
  readonly questions: readonly string[];
  /** Tokens of each answer. */
  readonly maxTokens: number;
}

/** What both sides gave. */
export interface SharedPrefixResult {
  /** Answers of unbatched generation. */
  readonly expected: readonly string[];
  /** Answers of the server. */
  readonly given: readonly string[];
  /** Prompt tokens of all clients. */
  readonly promptTokens: number;
  /** Prompt tokens that the server computed, by its own `/metrics`. */
  readonly prefillTokens: number;
  /** Prompt tokens that all clients share, in whole blocks. */
  readonly sharedTokens: number;
  readonly unbatchedSeconds: number;
  readonly servedSeconds: number;
}

const BLOCK_SIZE = 16;

/** Runs both sides. */
export async function compareSharedPrefix(
  device: VramDevice,
  model: LanguageModel,
  tokenizer: Tokenizer,
  load: SharedPrefixLoad,
): Promise<SharedPrefixResult> {
  const prompts = load.questions.map((question) => tokenizer.encode(load.shared + question));
  const [first = new Uint32Array(), ...others] = prompts;
  let common = first.length - 1;
  for (const other of others) while (!startsAlike(first, other, common)) common--;
  let begin = performance.now();
  const expected = await unbatched(device, model, tokenizer, { ...load, prompts, common });
  const unbatchedSeconds = (performance.now() - begin) / 1000;
  const promptTokens = prompts.reduce((sum, { length }) => sum + length, 0);
  const kvTokens = promptTokens + prompts.length * (load.maxTokens + BLOCK_SIZE);
  const options = { kvTokens, blockSize: BLOCK_SIZE, maxSequences: prompts.length };
  const engine = createBatchEngine(device, model, options);
  const app = createServer(engine, tokenizer, { model: 'model', apiKey: 'key' });
  try {
    const baseURL = `${await app.listen({ host: '127.0.0.1', port: 0 })}/v1`;
    // An answer of a software driver takes longer than the client's own patience.
    const client = new OpenAI({ baseURL, apiKey: 'key', timeout: 3_600_000, maxRetries: 0 });
    begin = performance.now();
    const given = await Promise.all(
      load.questions.map(async (question, index) => {
        const body = {
          model: 'model',
          prompt: load.shared + question,
          max_tokens: load.maxTokens,
          temperature: 0,
        };
        // Every other client streams.
        if (index % 2 === 0) return (await client.completions.create(body)).choices[0]?.text ?? '';
        let text = '';
        for await (const event of await client.completions.create({ ...body, stream: true })) {
          text += event.choices[0]?.text ?? '';
        }
        return text;
      }),
    );
    const servedSeconds = (performance.now() - begin) / 1000;
    const response = await app.inject({
      url: '/metrics',
      headers: { authorization: 'Bearer key' },
    });
    const prefillTokens = metricValue(response.body, 'vramkit_prefill_tokens_total');
    const sharedTokens = Math.floor(common / BLOCK_SIZE) * BLOCK_SIZE;
    const tokens = { promptTokens, prefillTokens, sharedTokens };
    return { expected, given, ...tokens, unbatchedSeconds, servedSeconds };
  } finally {
    await app.close();
    await engine.dispose();
  }
}

/** The value of an unlabelled metric in Prometheus' text format. */
export function metricValue(text: string, name: string): number {
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1]);
}

function startsAlike(a: Uint32Array, b: Uint32Array, count: number): boolean {
  return b.length >= count && a.subarray(0, count).every((id, index) => id === b[index]);
}

async function unbatched(
  device: VramDevice,
  model: LanguageModel,
  tokenizer: Tokenizer,
  load: SharedPrefixLoad & { readonly prompts: readonly Uint32Array[]; readonly common: number },
): Promise<string[]> {
  const { prompts, common, maxTokens } = load;
  const policy = full({ blockSize: BLOCK_SIZE });
  const longest = Math.max(...prompts.map(({ length }) => length));
  const kvTokens = 2 * (longest + maxTokens + BLOCK_SIZE);
  const session = createSession(device, model, { kvTokens, blockSize: BLOCK_SIZE });
  try {
    const shared = session.create(policy);
    await session.prefill(shared, prompts[0]?.subarray(0, common) ?? new Uint32Array());
    const texts: string[] = [];
    for (const prompt of prompts) {
      const sequence = await session.fork(shared, policy);
      await session.prefill(sequence, prompt.subarray(common));
      const ids: number[] = [];
      for await (const id of generate(session, sequence, { maxTokens })) ids.push(id);
      texts.push(tokenizer.decode(ids));
      session.free(sequence);
    }
    return texts;
  } finally {
    session.dispose();
  }
}

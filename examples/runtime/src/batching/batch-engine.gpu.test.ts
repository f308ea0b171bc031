/** The batch engine on tiny-moe: what it gives equals what each request gets alone. */
import { getEventListeners } from 'node:events';
import { createGpu } from '@vramkit/adapter';
import { allocate, countersSince, openDevice, type VramDevice } from '@vramkit/core';
import { full } from '@vramkit/eviction';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { generate } from '../generate.js';
import { loadModel } from '../load-model.js';
import { openModelFile } from '../model-file.js';
import { createSession } from '../session.js';
import type { LanguageModel } from '../weights.js';
import { createBatchEngine, type BatchEngine } from './batch-engine.js';

const folder = new URL('../../../../tools/models/tiny-moe/', import.meta.url);
const encode = (text: string): Uint32Array => Uint32Array.from(new TextEncoder().encode(text));
const shared = 'And the LORD spake unto the people, and said: ';
const questions = ['Hear ', 'Go up ', 'Behold ', 'The king ', 'In the day ', 'Now ', 'Woe ', 'My '];
const prompts = questions.map((question) => encode(shared + question));
const maxTokens = 12;

let gpu: GPU;
let device: VramDevice;
let model: LanguageModel;
let expected: number[][];

async function collect(stream: AsyncIterable<number>): Promise<number[]> {
  const ids: number[] = [];
  for await (const id of stream) ids.push(id);
  return ids;
}

async function load(on: VramDevice): Promise<LanguageModel> {
  const file = await openModelFile(folder.pathname);
  try {
    return await loadModel(on, file);
  } finally {
    await file.close();
  }
}

beforeAll(async () => {
  ({ gpu } = await createGpu());
  device = await openDevice({ gpu });
  model = await load(device);
  const session = createSession(device, model, { kvTokens: 256 });
  expected = [];
  for (const prompt of prompts) {
    const sequence = session.create(full({ blockSize: 16 }));
    await session.prefill(sequence, prompt);
    expected.push(await collect(generate(session, sequence, { maxTokens })));
    session.free(sequence);
  }
  session.dispose();
});
afterAll(() => {
  model.dispose();
  device.dispose();
});

async function withEngine(
  options: Parameters<typeof createBatchEngine>[2],
  use: (engine: BatchEngine) => Promise<void>,
): Promise<void> {
  const engine = createBatchEngine(device, model, options);
  try {
    await use(engine);
    engine.manager.check();
    expect(engine.metrics()).toMatchObject({ running: 0, waiting: 0, usage: 0 });
  } finally {
    await engine.dispose();
  }
}

describe('BatchEngine', () => {
  it('gives each request its own tokens, and computes the shared prefix once', async () => {
    await withEngine({ kvTokens: 2048, maxSequences: 8, chunkTokens: 64 }, async (engine) => {
      const requests = prompts.map((prompt) => engine.submit(prompt, { maxTokens }));
      expect(await Promise.all(requests.map(collect))).toEqual(expected);
      const sharedTokens = Math.floor(shared.length / 16) * 16;
      const promptTokens = prompts.reduce((sum, prompt) => sum + prompt.length, 0);
      const metrics = engine.metrics();
      expect(metrics.prefillTokens).toBe(promptTokens - sharedTokens * (prompts.length - 1));
      expect(metrics.hitTokens).toBe(sharedTokens * (prompts.length - 1));
      expect(metrics.generatedTokens).toBe(prompts.length * maxTokens);
      expect(requests.map((each) => each.finishReason)).toEqual(prompts.map(() => 'length'));
      expect(requests[1]?.cachedTokens).toBe(sharedTokens);
    });
  });

  it('gives the same tokens where requests are preempted and computed again', async () => {
    await withEngine({ kvTokens: 160, maxSequences: 8, chunkTokens: 64 }, async (engine) => {
      const options = { maxTokens: 40 };
      const given = await Promise.all(
        prompts.slice(0, 4).map((prompt) => collect(engine.submit(prompt, options))),
      );
      expect(given.map((ids) => ids.slice(0, maxTokens))).toEqual(expected.slice(0, 4));
      expect(engine.metrics().preemptions).toBeGreaterThan(0);
    });
  });

  it('creates nothing in a step after warm-up', async () => {
    await withEngine({ kvTokens: 1024, maxSequences: 4 }, async (engine) => {
      const run = async (): Promise<void> => {
        await Promise.all(
          prompts.slice(0, 4).map((prompt) => collect(engine.submit(prompt, { maxTokens }))),
        );
      };
      await run();
      await run();
      const before = { ...device.counters };
      await run();
      const { buffersCreated, bindGroupsCreated, pipelinesCreated } = countersSince(
        before,
        device.counters,
      );
      expect([buffersCreated, bindGroupsCreated, pipelinesCreated]).toEqual([0, 0, 0]);
    });
  });

  it('samples beside greedy requests, the same again for a seed', async () => {
    await withEngine({ kvTokens: 512, maxSequences: 4 }, async (engine) => {
      const [prompt = encode('a')] = prompts;
      const sampled = { maxTokens, temperature: 0.9, seed: 5 };
      const [greedy, first, second] = await Promise.all([
        collect(engine.submit(prompt, { maxTokens })),
        collect(engine.submit(prompt, sampled)),
        collect(engine.submit(prompt, sampled)),
      ]);
      expect(greedy).toEqual(expected[0]);
      expect(first).toEqual(second);
      expect(first).not.toEqual(greedy);
    });
  });

  it('computes and keeps a prompt that asks for no token', async () => {
    await withEngine({ kvTokens: 256 }, async (engine) => {
      const [prompt = encode('a')] = prompts;
      const first = engine.submit(prompt, { maxTokens: 0 });
      expect(await collect(first)).toEqual([]);
      expect(first).toMatchObject({ finishReason: 'length', generatedTokens: 0 });
      const { generatedTokens, prefillTokens } = engine.metrics();
      expect({ generatedTokens, prefillTokens }).toEqual({
        generatedTokens: 0,
        prefillTokens: prompt.length,
      });
      const second = engine.submit(prompt, { maxTokens });
      expect(await collect(second)).toEqual(expected[0]);
      expect(second.cachedTokens).toBe(Math.floor(prompt.length / 16) * 16);
    });
  });

  it('ends the requests of a step that finds no memory to read with, and goes on', async () => {
    const narrow = await openDevice({ gpu, budgetBytes: 64 * 2 ** 20 });
    const weights = await load(narrow);
    const engine = createBatchEngine(narrow, weights, { kvTokens: 256 });
    const { limitBytes, liveBytes } = narrow.memory.stats();
    const label = 'all that is left';
    const sizeBytes = limitBytes - liveBytes;
    const taken = allocate(narrow.memory, { sizeBytes, kind: 'activations', label });
    // Each that samples reads a row of logits of its own.
    const submit = (): Promise<number[]> =>
      collect(engine.submit(prompts[0] ?? encode('a'), { maxTokens, temperature: 1 }));
    for (const result of await Promise.allSettled([submit(), submit(), submit()])) {
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'out-of-memory' } });
    }
    narrow.memory.free(taken);
    expect(await submit()).toHaveLength(maxTokens);
    expect(engine.metrics()).toMatchObject({ running: 0, waiting: 0, usage: 0 });
    await engine.dispose();
    weights.dispose();
    narrow.dispose();
  });

  it('frees a request that is cancelled, aborted or left, without disturbing others', async () => {
    await withEngine({ kvTokens: 1024, maxSequences: 4 }, async (engine) => {
      const [first, second, third, fourth] = prompts.map((prompt) => prompt);
      const abort = new AbortController();
      const options = { maxTokens: 64 };
      const cancelled = engine.submit(first ?? encode('a'), options);
      const aborted = engine.submit(second ?? encode('a'), { ...options, signal: abort.signal });
      const left = engine.submit(third ?? encode('a'), options);
      const kept = collect(engine.submit(fourth ?? encode('a'), { maxTokens }));
      for await (const _ of left) break;
      abort.abort();
      cancelled.cancel();
      expect(await kept).toEqual(expected[3]);
      for (const each of [cancelled, aborted, left]) expect(each.finishReason).toBe('cancelled');
      expect((await collect(aborted)).length).toBeLessThan(64);
    });
  });

  it('leaves nothing at a signal that outlives its requests', async () => {
    await withEngine({ kvTokens: 64 }, async (engine) => {
      const { signal } = new AbortController();
      const submit = () => engine.submit(encode('a'), { maxTokens: 2, signal });
      const cancelled = submit();
      cancelled.cancel();
      for await (const _ of submit()) break;
      expect(await collect(submit())).toHaveLength(2);
      expect(getEventListeners(signal, 'abort')).toEqual([]);
    });
  });

  it('rejects what cannot run', async () => {
    await withEngine({ kvTokens: 64 }, async (engine) => {
      const code = (expectedCode: string): unknown =>
        expect.objectContaining({ code: expectedCode });
      const submit = (prompt: Uint32Array, tokens: number) => () =>
        engine.submit(prompt, { maxTokens: tokens });
      expect(submit(new Uint32Array(0), 1)).toThrow(code('invalid-argument'));
      expect(submit(Uint32Array.of(256), 1)).toThrow(code('invalid-argument'));
      expect(submit(encode('a'), -1)).toThrow(code('invalid-argument'));
      expect(submit(encode('a'), 1_000_000)).toThrow(code('context-exceeded'));
      expect(submit(encode('a'), 64)).toThrow(code('out-of-memory'));
      expect(await collect(engine.submit(encode('a'), { maxTokens: 2 }))).toHaveLength(2);
    });
  });

  it('ends every request with device-lost, and a new device serves', async () => {
    const lost = await openDevice({ gpu });
    const weights = await load(lost);
    const engine = createBatchEngine(lost, weights, { kvTokens: 512 });
    const requests = prompts.slice(0, 2).map((each) => engine.submit(each, { maxTokens: 200 }));
    const ended = Promise.allSettled(requests.map(collect));
    await new Promise((resolve) => setTimeout(resolve, 50));
    lost.gpuDevice.destroy();
    for (const result of await ended) {
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'device-lost' } });
    }
    expect(() => engine.submit(encode('a'), { maxTokens: 1 })).toThrow();
    await engine.dispose();
    weights.dispose();
    lost.dispose();
    await withEngine({ kvTokens: 256 }, async (again) => {
      expect(await collect(again.submit(prompts[0] ?? encode('a'), { maxTokens }))).toEqual(
        expected[0],
      );
    });
  });
});

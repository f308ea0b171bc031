/** A server whose experts are under a budget answers as one that has them all, and counts. */
import { createGpu } from '@vramkit/adapter';
import { openDevice } from '@vramkit/core';
import {
  createBatchEngine,
  loadModel,
  loadTokenizer,
  openModelFile,
  type parseExpertCaching,
} from '@vramkit/example-runtime';
import { expect, it } from 'vitest';
import { parseOptions } from './options.js';
import { createServer } from './server.js';
import { metricValue } from './shared-prefix.js';

const folder = new URL('../../../tools/models/tiny-moe/', import.meta.url).pathname;
const FLAGS = ['--model', 'tiny-moe', '--expert-budget', '3M', '--expert-prefetch'];

it('gives the text of resident experts, two requests at once, and says what it cost', async () => {
  const options = parseOptions([...FLAGS, '--gpu-budget', '64M'], {});
  if (options === 'help') throw new Error('no help was asked for');
  expect(options.gpuBudgetBytes).toBe(64 * 2 ** 20);
  const { gpu } = await createGpu();
  using device = await openDevice({ gpu, budgetBytes: options.gpuBudgetBytes ?? 0 });
  const file = await openModelFile(folder);
  const tokenizer = await loadTokenizer(file);
  const answers = async (experts: ReturnType<typeof parseExpertCaching>) => {
    using model = await loadModel(device, file, experts === undefined ? {} : { experts });
    const engine = createBatchEngine(device, model, { kvTokens: 256, maxSequences: 2 });
    const app = createServer(engine, tokenizer, { model: 'tiny-moe' });
    const body = { model: 'tiny-moe', max_tokens: 12, temperature: 0 };
    const texts = await Promise.all(
      ['And the LORD said', 'In the beginning '].map(async (prompt) => {
        const url = '/v1/completions';
        const { json } = await app.inject({ method: 'POST', url, body: { ...body, prompt } });
        return json<{ choices: { text: string }[] }>().choices[0]?.text;
      }),
    );
    const { body: metrics } = await app.inject('/metrics');
    await app.close();
    await engine.dispose();
    return { texts, metrics };
  };
  const resident = await answers(undefined);
  const cached = await answers(options.experts);
  await file.close();
  expect(cached.texts).toEqual(resident.texts);
  expect(cached.texts[0]).toHaveLength(12);
  expect(resident.metrics).not.toContain('vramkit_expert');
  const of = (name: string): number => metricValue(cached.metrics, `vramkit_expert_${name}_total`);
  expect(Math.min(of('hits'), of('misses'), of('prefetched'))).toBeGreaterThan(0);
  expect(of('loaded_bytes')).toBe((of('misses') + of('prefetched')) * 3 * 128 * 256 * 2);
  expect(of('low_bit')).toBe(0);
});

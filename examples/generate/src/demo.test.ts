/** What cannot work is refused before anything is loaded. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadTokenizer, openModelFile, type Tokenizer } from '@vramkit/example-runtime';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { makePlan, type PlanOptions } from './demo.js';
import { checkOutputs } from './options.js';

const root = await mkdtemp(join(tmpdir(), 'vramkit-demo-'));
afterAll(() => rm(root, { recursive: true }));

const options: PlanOptions = {
  promptFile: undefined,
  question: undefined,
  policies: ['full'],
  blockSize: 16,
  kvBudgetTokens: undefined,
  maxTokens: undefined,
};
let tokenizer: Tokenizer;
beforeAll(async () => {
  const folder = new URL('../../../tools/models/tiny-moe/', import.meta.url).pathname;
  const file = await openModelFile(folder);
  tokenizer = await loadTokenizer(file).finally(() => file.close());
});

it('an answer that exceeds the context, with the length that fits', async () => {
  const plan = (maxTokens: number) => makePlan(tokenizer, { ...options, maxTokens }, 1024);
  const error = await plan(100_000).catch((each: unknown) => each);
  expect(String(error)).toMatch(/context-exceeded: a prompt of 906 tokens and an answer of 100000/);
  const most = Number(/--max-tokens at most (\d+) fits/.exec(String(error))?.[1]);
  expect((await plan(most)).maxTokens).toBe(most);
  await expect(plan(most + 1)).rejects.toThrow(/context-exceeded/);
});

it('a prompt that exceeds the context', async () => {
  await expect(makePlan(tokenizer, options, 900)).rejects.toThrow(/shorten the prompt/);
});

it('an empty prompt', async () => {
  const promptFile = join(root, 'empty.txt');
  await writeFile(promptFile, ' \n');
  await expect(makePlan(tokenizer, { ...options, promptFile }, 1024)).rejects.toThrow(
    /invalid-argument: the prompt is empty: nothing is in '.*empty\.txt'/,
  );
});

it('results that cannot be written', async () => {
  const reportFile = join(root, 'report.html');
  await checkOutputs({ jsonFile: undefined, reportFile });
  const jsonFile = join(root, 'none', 'x.json');
  await expect(checkOutputs({ jsonFile, reportFile })).rejects.toThrow(
    /invalid-argument: --json '.*x\.json' cannot be written/,
  );
  await expect(checkOutputs({ jsonFile, reportFile: root })).rejects.toThrow(/invalid-argument/);
});

/** The study in its short form: tiny-moe over text that it was not trained on. */
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createGpu } from '@vramkit/adapter';
import { openDevice, type VramDevice } from '@vramkit/core';
import { full, kvPolicy } from '@vramkit/eviction';
import {
  createSession,
  loadModel,
  openModelFile,
  type InferenceSession,
  type LanguageModel,
} from '@vramkit/example-runtime';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { StudyDocument } from './documents.js';
import type { StudyOptions } from './options.js';
import { reportModel } from './report/sections.js';
import { writeReport } from './report/write-report.js';
import { restoreContext, saveContext } from './saved-context.js';
import { storeOf, studyModel } from './study.js';
import { feed } from './teacher-forcing.js';

const model = new URL('../../../tools/models/tiny-moe/', import.meta.url).pathname;
const CONTEXT = 192;
const blockSize = 16;

let device: VramDevice;
let driver: string;
let work: string;
let weights: LanguageModel;
let session: InferenceSession;
let text: string;
beforeAll(async () => {
  const found = await createGpu();
  driver = found.driver;
  device = await openDevice({ gpu: found.gpu });
  work = await mkdtemp(join(tmpdir(), 'vramkit-study-'));
  text = await readFile(join(model, 'eval.txt'), 'utf8');
  const file = await openModelFile(model);
  weights = await loadModel(device, file, { floats: 'f32' }).finally(() => file.close());
  session = createSession(device, weights, { kvTokens: 1024, blockSize, kvDtype: 'f32' });
});
afterAll(async () => {
  session.dispose();
  weights.dispose();
  device.dispose();
  await rm(work, { recursive: true });
});

it('goes on where it was stopped, and reports every cell', async () => {
  const documents: StudyDocument[] = [0, 1].map((index) => ({
    name: `text ${index}`,
    half: index === 0 ? 'seen' : 'unseen',
    text: text.slice(16_384 * index, 16_384 * index + 3000),
  }));
  const options: StudyOptions = {
    ...{ models: ['tiny-moe'], documents: 2, half: undefined, reportOnly: false, folder: work },
    parts: ['continuation', 'retrieval', 'decode'],
    policies: ['pagedEviction', 'streamingLlm', 'keyDiff', 'h2o'],
    ...{ shares: [1 / 4, 1 / 16], blockSizes: [blockSize] },
    ...{ contextTokens: CONTEXT, continuationTokens: 33 },
  };
  const lines: string[] = [];
  const log = (line: string): void => void lines.push(line);
  const run = (given: readonly StudyDocument[]) =>
    studyModel(device, 'tiny-moe', given, { ...options, driver, log });
  await run(documents.slice(0, 1));
  const store = storeOf(options, 'tiny-moe');
  const kept = join(store.folder, 'text_0', 'continuation-b16-pagedEviction-token-4.json');
  const lost = kept.replace('pagedEviction', 'keyDiff');
  const { mtimeMs } = await stat(kept);
  const before = await readFile(lost, 'utf8');
  await rm(lost);
  lines.length = 0;
  await run(documents);
  expect((await stat(kept)).mtimeMs).toBe(mtimeMs);
  expect(lines.filter((line) => line.startsWith('text 0'))).toHaveLength(1);
  const loss = (json: string): number =>
    (JSON.parse(json) as { continuation: { losses: number[] } }).continuation.losses[0] ?? NaN;
  // The context came from the disk: norms of rounded keys, so not to the last bit.
  expect(Math.abs(loss(await readFile(lost, 'utf8')) - loss(before))).toBeLessThan(0.05);

  const results = await store.all();
  const report = reportModel(results);
  const row = (policy: string, share: number) =>
    report?.rows.find((each) => {
      return each.policy === policy && each.share === share && each.documents === 'both';
    })?.figures;
  expect(row('full', 1)).toMatchObject({
    agreement: { mean: 1, count: 2 },
    divergence: { mean: 0 },
    lossIncrease: { mean: 0 },
  });
  const { bytesPerBlock } = session.cache;
  for (const policy of options.policies) {
    const figures = row(policy, 1 / 4);
    expect(figures?.perplexity?.mean).toBeGreaterThan(1);
    expect(figures?.attentionError?.mean).toBeGreaterThan(0);
    // The study's cache is of 16 bits, this one of 32; norms are of 32 in both.
    expect(figures?.kvPeakBytes?.mean).toBeLessThan((CONTEXT / 4 / blockSize + 1) * bytesPerBlock);
  }
  // A sixteenth of 192 tokens is no three blocks.
  expect(results.filter(({ refused }) => refused !== undefined).length).toBeGreaterThan(0);
  const page = await readFile(
    await writeReport(work, report === undefined ? [] : [report]),
    'utf8',
  );
  expect(page).toContain('PagedEviction beside its rivals');
  expect(page).not.toMatch(/<script|https?:\/\/(?!www\.w3\.org)/);
});

it('reads in blocks what it would read token by token', async () => {
  const ids = Uint32Array.from(new TextEncoder().encode(text.slice(20_000, 20_400)));
  const policies = ['pagedEviction', 'h2o', 'tova', 'keyDiff'].map((name) =>
    kvPolicy(name, { budgetTokens: 64, blockSize }),
  );
  const trunk = session.create(full({ blockSize }), policies);
  await session.prefill(trunk, ids.slice(0, 200));
  const next = ids.subarray(200, 250);
  for (const policy of policies) {
    const [blocks, tokens] = [await session.fork(trunk, policy), await session.fork(trunk, policy)];
    const atOnce = await feed(session, blocks, next);
    const oneByOne = await feed(session, tokens, next, { stepTokens: 1 });
    expect([...session.sequences.table(blocks.id).positions]).toEqual([
      ...session.sequences.table(tokens.id).positions,
    ]);
    let most = 0;
    atOnce.rows.forEach((row, i) => {
      row.forEach((value, id) => {
        most = Math.max(most, Math.abs(value - (oneByOne.rows[i]?.[id] ?? NaN)));
      });
    });
    expect([policy.name, most < 2e-3]).toEqual([policy.name, true]);
    session.free(blocks);
    session.free(tokens);
  }
  session.free(trunk);
});

it('saves and restores a context without loss in a cache of 32 bits', async () => {
  const ids = Uint32Array.from(new TextEncoder().encode(text.slice(0, 150)));
  const policy = full({ blockSize });
  const trunk = session.create(policy);
  await session.prefill(trunk, ids.slice(0, 130));
  const path = join(work, 'context.kv');
  expect(await restoreContext(path, session, policy, 130)).toBeUndefined();
  await saveContext(path, session, trunk);
  const restored = await restoreContext(path, session, policy, 130);
  if (restored === undefined) throw new Error('the context was not restored');
  const rows = async (sequence: typeof trunk): Promise<number[]> => {
    const { rows: all } = await feed(session, sequence, ids.slice(130), { firstRow: 19 });
    return all.flatMap((row) => [...row]);
  };
  expect(await rows(restored)).toEqual(await rows(trunk));
  session.free(restored);
  session.free(trunk);
});

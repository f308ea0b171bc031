/** Prefixes outlive eviction and restart on tiny-moe, and never change a token. */
import { createGpu } from '@vramkit/adapter';
import { openDevice, type VramDevice } from '@vramkit/core';
import { chaoticStore, memoryStore, readBlob, type BlobStore } from '@vramkit/storage';
import { seededRandom } from '@vramkit/core/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  createBatchEngine,
  type BatchEngine,
  type EngineMetrics,
} from '../batching/batch-engine.js';
import { loadModel } from '../load-model.js';
import { openModelFile, type ModelFile } from '../model-file.js';
import type { LanguageModel } from '../weights.js';
import { modelFingerprint, openKvStore } from './open-kv-store.js';

const folder = new URL('../../../../tools/models/tiny-moe/', import.meta.url);
const encode = (text: string): Uint32Array => Uint32Array.from(new TextEncoder().encode(text));
const shared = 'And the LORD spake unto the people, and said: '.repeat(3);
const prompts = ['Hear ', 'Go up ', 'Behold '].map((question) => encode(shared + question));
const sharedTokens = Math.floor(shared.length / 16) * 16;
const maxTokens = 8;

let device: VramDevice;
let file: ModelFile;
let model: LanguageModel;
let fingerprint: string;
let expected: number[][];

async function collect(stream: AsyncIterable<number>): Promise<number[]> {
  const ids: number[] = [];
  for await (const id of stream) ids.push(id);
  return ids;
}

/** Runs an engine of its own over a store, as a process would. */
async function withEngine<Result>(
  store: BlobStore | undefined,
  use: (engine: BatchEngine) => Promise<Result>,
  kvTokens = 2048,
): Promise<Result> {
  const kvStore =
    store === undefined ? undefined : await openKvStore(store, file, { model: fingerprint });
  const engine = createBatchEngine(device, model, { kvTokens, kvStore });
  try {
    const result = await use(engine);
    engine.manager.check();
    return result;
  } finally {
    await engine.dispose();
  }
}

/** All prompts at once. */
async function answers(engine: BatchEngine, namespace = ''): Promise<number[][]> {
  const options = { maxTokens, namespace };
  return Promise.all(prompts.map((prompt) => collect(engine.submit(prompt, options))));
}

/** All prompts, and the counts once all is stored. */
async function run(store: BlobStore): Promise<EngineMetrics> {
  const used = await withEngine(store, async (engine) => {
    expect(await answers(engine)).toEqual(expected);
    return engine;
  });
  return used.metrics();
}

beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
  file = await openModelFile(folder.pathname);
  model = await loadModel(device, file);
  fingerprint = await modelFingerprint(file);
  expected = await withEngine(undefined, answers);
});
afterAll(async () => {
  model.dispose();
  device.dispose();
  await file.close();
});

describe('a store of prefixes', () => {
  it('gives a second process the prefix of the first, and the same tokens', async () => {
    const store = memoryStore();
    const cold = await run(store);
    expect(cold).toMatchObject({ restoredTokens: 0, storeFailures: 0 });
    expect(cold.storedBlocks).toBeGreaterThanOrEqual(sharedTokens / 16);
    const warm = await run(store);
    expect(warm.restoredTokens).toBeGreaterThanOrEqual(sharedTokens);
    expect(warm.prefillTokens).toBe(cold.prefillTokens - warm.restoredTokens);
    // What is there already is not stored again.
    expect((await run(store)).storedBlocks).toBe(0);
  });

  it('brings back what the device evicted', async () => {
    const [prompt = new Uint32Array(0)] = prompts;
    const [first] = expected;
    const other = encode('x'.repeat(300));
    await withEngine(
      memoryStore(),
      async (engine) => {
        expect(await collect(engine.submit(prompt, { maxTokens }))).toEqual(first);
        await collect(engine.submit(other, { maxTokens })); // takes every block
        expect(engine.manager.match(prompt)).toBeLessThan(sharedTokens);
        expect(await collect(engine.submit(prompt, { maxTokens }))).toEqual(first);
        expect(engine.metrics().restoredTokens).toBeGreaterThan(0);
      },
      320,
    );
  });

  it('keeps namespaces apart', async () => {
    const store = memoryStore();
    await withEngine(store, (engine) => answers(engine, 'tenant a'));
    await withEngine(store, async (engine) => {
      expect(await answers(engine, 'tenant b')).toEqual(expected);
      expect(engine.metrics().restoredTokens).toBe(0);
      expect(await answers(engine, 'tenant a')).toEqual(expected);
      expect(engine.metrics().restoredTokens).toBeGreaterThanOrEqual(sharedTokens);
    });
  });

  it('computes what is damaged, and answers where the store fails', async () => {
    const store = memoryStore();
    await run(store);
    const keys: string[] = [];
    for await (const { key } of store.list('kv/')) keys.push(key);
    for (const key of keys) {
      const bytes = await readBlob(store, key);
      bytes[100] = (bytes[100] ?? 0) ^ 1;
      await store.put(key, bytes);
    }
    expect(await run(store)).toMatchObject({ restoredTokens: 0, storeFailures: 0 });
    const { uniform: random } = seededRandom(3);
    const failing = chaoticStore(store, { random, failureRate: 0.5 });
    // Listing works, so that the store can be opened.
    const flaky = {
      ...failing,
      list: (...call: Parameters<BlobStore['list']>) => store.list(...call),
    };
    expect((await run(flaky)).storeFailures).toBeGreaterThan(0);
  });

  it('is refused where its blocks have another shape', async () => {
    const kvStore = await openKvStore(memoryStore(), file, { model: fingerprint, blockSize: 8 });
    expect(() => createBatchEngine(device, model, { kvTokens: 64, kvStore })).toThrow(
      expect.objectContaining({ code: 'invalid-argument' }),
    );
  });
});

/** A store of prefixes that hangs delays one request, and changes no answer (tiny-moe). */
import { createGpu } from '@vramkit/adapter';
import { openDevice, type VramDevice } from '@vramkit/core';
import {
  createBatchEngine,
  loadModel,
  modelFingerprint,
  openModelFile,
  type BatchEngine,
  type KvStoreOptions,
  type LanguageModel,
  type ModelFile,
} from '@vramkit/example-runtime';
import { memoryStore, type BlobStore } from '@vramkit/storage';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openPrefixes } from './prefixes.js';

const folder = new URL('../../../tools/models/tiny-moe/', import.meta.url);
const shared = 'And the LORD spake unto the people, and said: ';
const prompts = ['Hear ', 'Go up ', 'Behold '].map((question) =>
  Uint32Array.from(new TextEncoder().encode(shared + question)),
);
const never = (): Promise<never> => new Promise(() => undefined);

let device: VramDevice;
let file: ModelFile;
let model: LanguageModel;
beforeAll(async () => {
  device = await openDevice({ gpu: (await createGpu()).gpu });
  file = await openModelFile(folder.pathname);
  model = await loadModel(device, file);
});
afterAll(async () => {
  model.dispose();
  device.dispose();
  await file.close();
});

async function answers(kvStore: KvStoreOptions | undefined) {
  const engine: BatchEngine = createBatchEngine(device, model, { kvTokens: 1024, kvStore });
  const texts: number[][] = [];
  for (const prompt of prompts) {
    const ids: number[] = [];
    for await (const id of engine.submit(prompt, { maxTokens: 4 })) ids.push(id);
    texts.push(ids);
  }
  await engine.dispose();
  return { texts, metrics: engine.metrics() };
}

describe('a store of prefixes that hangs', () => {
  it('is left after its time, once, with the answers of a server without it', async () => {
    const { texts } = await answers(undefined);
    const store = memoryStore();
    const options = { blockSize: 16, budgetBytes: 2 ** 30, model: await modelFingerprint(file) };
    const stored = await answers(await openPrefixes(store, file, options));
    expect(stored.texts).toEqual(texts);
    expect(stored.metrics.storedBlocks).toBeGreaterThan(0);
    let calls = 0;
    const hanging: BlobStore = {
      name: 'hanging',
      capabilities: store.capabilities,
      list: (...call) => store.list(...call), // it could be opened
      head: never,
      put: never,
      delete: never,
      async *get() {
        calls += 1; // what a read begins with
        yield await never();
      },
    };
    const kvStore = await openPrefixes(hanging, file, { ...options, timeoutMs: 50 });
    const { texts: given, metrics } = await answers(kvStore);
    expect(given).toEqual(texts);
    expect(metrics).toMatchObject({ restoredTokens: 0, storeFailures: 1 });
    // The blocks of one prefix, asked for together, and of no other.
    expect(calls).toBeGreaterThan(1);
    expect(calls).toBeLessThanOrEqual(4);
  }, 120_000);
});

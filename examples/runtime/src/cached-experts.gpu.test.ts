/** A model whose experts do not fit computes the same tokens as one whose experts all do. */
import { createGpu } from '@vramkit/adapter';
import { Batch, openDevice, type ReplacementPolicy, type VramDevice } from '@vramkit/core';
import { full, lru, s3Fifo } from '@vramkit/eviction';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { generate, score } from './generate.js';
import { loadModel } from './load-model.js';
import { openModelFile, type ModelFile } from './model-file.js';
import { createSession } from './session.js';
import type { LanguageModel } from './weights.js';

const folder = new URL('../../../tools/models/tiny-moe/', import.meta.url).pathname;
const prompt = Uint8Array.from(Buffer.from('In the beginning God created the '));
/** Bytes of one expert of tiny-moe: three matrices of 128 x 256 in 16 bits. */
const expertBytes = 3 * 128 * 256 * 2;

let device: VramDevice;
let file: ModelFile;
beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
  file = await openModelFile(folder);
});
afterAll(async () => {
  await file.close();
  device.dispose();
});

async function run(model: LanguageModel): Promise<{ tokens: number[]; losses: Float32Array }> {
  using session = createSession(device, model, { kvTokens: 256 });
  const sequence = session.create(full({ blockSize: 16 }));
  await session.prefill(sequence, Uint32Array.from(prompt));
  const tokens: number[] = [];
  for await (const id of generate(session, sequence, { maxTokens: 6 })) tokens.push(id);
  const scored = session.create(full({ blockSize: 16 }));
  const losses = await score(session, scored, Uint32Array.from(prompt));
  return { tokens, losses };
}

function caches(model: LanguageModel) {
  return model.layers.flatMap(({ feedForward }) =>
    feedForward.type === 'experts' && feedForward.cache !== undefined ? [feedForward.cache] : [],
  );
}

describe('cached experts', () => {
  it('give the tokens and losses of resident ones, under two replacement policies', async () => {
    let expected;
    {
      using resident = await loadModel(device, file);
      expected = await run(resident);
    }
    for (const make of [lru, s3Fifo]) {
      // Three of eight experts of each of four layers.
      const budgetBytes = 4 * 3 * expertBytes;
      const policy = (): ReplacementPolicy<number> => make();
      using model = await loadModel(device, file, { experts: { budgetBytes, policy } });
      const got = await run(model);
      expect(got.tokens).toEqual(expected.tokens);
      expect(got.losses).toEqual(expected.losses);
      for (const cache of caches(model)) {
        cache.check();
        const { hits, misses, evictions, loadedBytes } = cache.stats();
        expect(hits).toBeGreaterThan(0);
        expect(evictions).toBeGreaterThan(0);
        expect(loadedBytes).toBe(misses * expertBytes);
        expect(cache.arenas.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)).toBe(
          3 * expertBytes + 2 * 8 * 4,
        );
      }
    }
  });

  it('miss each expert once where the budget holds them all', async () => {
    const policy = (): ReplacementPolicy<number> => lru();
    const experts = { budgetBytes: 32 * expertBytes, policy };
    using model = await loadModel(device, file, { experts });
    await run(model);
    for (const cache of caches(model)) {
      const { misses, evictions } = cache.stats();
      expect(misses).toBeLessThanOrEqual(8);
      expect(evictions).toBe(0);
    }
  });

  it('refuse a budget below one expert a layer, and steps recorded ahead', async () => {
    const policy = (): ReplacementPolicy<number> => lru();
    const load = (budgetBytes: number): Promise<LanguageModel> =>
      loadModel(device, file, { experts: { budgetBytes, policy } });
    await expect(load(4 * expertBytes - 4)).rejects.toMatchObject({ code: 'out-of-memory' });
    using model = await load(4 * expertBytes);
    using session = createSession(device, model, { kvTokens: 64 });
    const sequence = session.create(full({ blockSize: 16 }));
    const batch = new Batch(device, 'ahead');
    expect(() => session.recordStep(batch, sequence, Uint32Array.of(1))).toThrow(/wait/);
    await session.prefill(sequence, Uint32Array.from(prompt));
  });
});

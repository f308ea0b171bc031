/** A model whose experts do not fit computes the same tokens as one whose experts all do. */
import { createGpu } from '@vramkit/adapter';
import { Batch, openDevice, type ReplacementPolicy, type VramDevice } from '@vramkit/core';
import { full, lru, s3Fifo } from '@vramkit/eviction';
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { generate, score } from '../generate.js';
import { loadModel } from '../load-model.js';
import { openModelFile, type ModelFile } from '../model-file.js';
import { createSession } from '../session.js';
import { openSession } from '../streaming/open-session.js';
import { expertStats, type ExpertCaching } from './expert-caching.js';
import type { LanguageModel } from '../weights.js';

const folder = new URL('../../../../tools/models/tiny-moe/', import.meta.url).pathname;
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

  it('give the same tokens and more hits where they are read ahead', async () => {
    const policy = (): ReplacementPolicy<number> => lru();
    const caching = { budgetBytes: 4 * 3 * expertBytes, policy };
    using plain = await loadModel(device, file, { experts: caching });
    const expected = await run(plain);
    using model = await loadModel(device, file, { experts: { ...caching, prefetch: true } });
    expect(await run(model)).toEqual(expected);
    for (const cache of caches(model)) cache.check();
    const [before, after] = [expertStats(plain), expertStats(model)];
    if (before === undefined || after === undefined) throw new Error('nothing is cached');
    expect(after.hits + after.misses).toBe(before.hits + before.misses);
    expect(after.hits).toBeGreaterThan(before.hits);
    expect(after.prefetchHits).toBeGreaterThan(after.prefetched / 4);
    expect(after.loadedBytes).toBe((after.misses + after.prefetched) * expertBytes);
    // Nobody looks ahead to the first layer.
    expect(caches(model)[0]?.stats().prefetched).toBe(0);
  });

  it('checklist 34: lose little to copies of few bits on misses of little weight', async () => {
    const policy = (): ReplacementPolicy<number> => lru();
    const caching = { budgetBytes: 4 * 3 * expertBytes, policy };
    const lossesWith = async (experts?: ExpertCaching) => {
      using model = await loadModel(device, file, experts === undefined ? {} : { experts });
      using session = createSession(device, model, { kvTokens: 256, chunkTokens: 1 });
      const sequence = session.create(full({ blockSize: 16 }));
      const text = await readFile(`${folder}eval.txt`);
      const losses = await score(session, sequence, Uint32Array.from(text.subarray(9000, 9048)));
      for (const cache of caches(model)) cache.check();
      return { mean: losses.reduce((sum, loss) => sum + loss, 0) / 47, stats: expertStats(model) };
    };
    const resident = await lossesWith();
    const never = await lossesWith({ ...caching, lowBit: { bits: 2, below: 1e-9 } });
    expect(never.mean).toBe(resident.mean);
    expect(never.stats?.lowBit).toBe(0);
    const some = await lossesWith({ ...caching, lowBit: { bits: 2, below: 0.3 } });
    const { lowBit = 0, hits = 0, misses = 0, loadedBytes = 0 } = some.stats ?? {};
    // Two experts for each of 47 tokens in 4 layers; the second has under 0.3 in a quarter or so.
    expect(hits + misses).toBe(47 * 4 * 2);
    expect(lowBit).toBeGreaterThan(47);
    expect(loadedBytes).toBeLessThan(misses * expertBytes);
    expect(some.mean).not.toBe(resident.mean);
    expect(Math.abs(some.mean / resident.mean - 1)).toBeLessThan(0.02);
    // Below 1 is everything: copies of 2 bits throughout lose what 2 bits lose, a sixth here; other
    // weights than these would lose several times as much.
    const all = await lossesWith({ ...caching, lowBit: { bits: 2, below: 1 } });
    expect(all.stats?.lowBit).toBeGreaterThan(1.5 * lowBit);
    expect(all.mean / resident.mean).toBeLessThan(1.25);
  });

  it('fit a device that their model does not fit, and say so where they do not', async () => {
    const { gpu } = await createGpu();
    const policy = (): ReplacementPolicy<number> => lru();
    const open = async (budgetBytes: number) => {
      const small = await openDevice({ gpu, budgetBytes });
      const options = { kvTokens: 64, chunkTokens: 8, maxLogitRows: 4 };
      const experts = { budgetBytes: 4 * 2 * expertBytes, policy };
      try {
        using opened = await openSession(small, file, { ...options, experts });
        const sequence = opened.session.create(full({ blockSize: 16 }));
        await opened.session.prefill(sequence, Uint32Array.from(prompt));
        expect(small.memory.stats().peakReservedBytes).toBeLessThanOrEqual(budgetBytes);
        return opened.placement.streaming;
      } finally {
        small.dispose();
      }
    };
    // Thirty-two experts take 6.3 MB; eight of them and everything else fit.
    expect(await open(2_800_000)).toBe('none');
    await expect(open(2_400_000)).rejects.toThrow(/layers fit beside their experts/);
  });

  it('end a step whose expert cannot be read, and can be freed at once', async () => {
    let reads = 0;
    let broken = false;
    const failing: ModelFile = {
      ...file,
      tensor: (name) => {
        const tensor = file.tensor(name);
        if (!name.includes('.experts.')) return tensor;
        return {
          ...tensor,
          read: async (...range) => {
            reads += 1;
            // Some of these are asked for ahead, which must not end the step.
            if (broken && reads % 7 === 0) throw new Error('the disk is gone');
            return tensor.read(...range);
          },
        };
      },
    };
    const policy = (): ReplacementPolicy<number> => lru();
    const experts = { budgetBytes: 4 * 3 * expertBytes, policy, prefetch: true };
    const model = await loadModel(device, failing, { experts });
    const session = createSession(device, model, { kvTokens: 64 });
    const sequence = session.create(full({ blockSize: 16 }));
    broken = true;
    const running = session.prefill(sequence, Uint32Array.from(prompt));
    await expect(running).rejects.toThrow('the disk is gone');
    for (const cache of caches(model)) cache.check();
    broken = false;
    session.free(sequence);
    // What is resident now is right: the same tokens as ever.
    const again = await run(model);
    using plain = await loadModel(device, file);
    expect(again).toEqual(await run(plain));
    broken = true;
    const last = session.create(full({ blockSize: 16 }));
    await expect(session.prefill(last, Uint32Array.from(prompt))).rejects.toThrow('disk');
    session.dispose();
    model.dispose();
    await device.settle();
  });

  it('refuse a budget below one expert a layer, and steps recorded ahead', async () => {
    const policy = (): ReplacementPolicy<number> => lru();
    const load = (budgetBytes: number): Promise<LanguageModel> =>
      loadModel(device, file, { experts: { budgetBytes, policy } });
    await expect(load(4 * expertBytes - 4)).rejects.toMatchObject({
      code: 'out-of-memory',
      context: { neededBytes: 4 * expertBytes },
    });
    const dense = { ...file, config: { ...file.config, experts: 0 } };
    const experts = { budgetBytes: 4 * expertBytes, policy };
    await expect(loadModel(device, dense, { experts })).rejects.toThrow(/has no experts to keep/);
    using model = await load(4 * expertBytes);
    using session = createSession(device, model, { kvTokens: 64 });
    const sequence = session.create(full({ blockSize: 16 }));
    const batch = new Batch(device, 'ahead');
    expect(() => session.recordStep(batch, sequence, Uint32Array.of(1))).toThrow(/wait/);
    await session.prefill(sequence, Uint32Array.from(prompt));
  });
});

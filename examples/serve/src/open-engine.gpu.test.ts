/** The KV cache takes what a budget leaves; what does not fit is refused with what would. */
import { createGpu } from '@vramkit/adapter';
import { openDevice } from '@vramkit/core';
import { openModelFile, type LanguageModel } from '@vramkit/example-runtime';
import { expect, it } from 'vitest';
import { loadWeights, openEngine, type EngineOptions } from './open-engine.js';

const folder = new URL('../../../tools/models/tiny-moe/', import.meta.url).pathname;
const OPTIONS: EngineOptions = {
  kvTokens: undefined,
  maxSequences: 4,
  chunkTokens: 64,
  blockSize: 16,
  prefixCaching: true,
  kvStore: undefined,
};
const MiB = 2 ** 20;

async function withBudget(
  budgetBytes: number,
  use: (open: (options?: Partial<EngineOptions>) => ReturnType<typeof openEngine>) => Promise<void>,
): Promise<void> {
  const { gpu } = await createGpu();
  using device = await openDevice({ gpu, budgetBytes });
  const file = await openModelFile(folder);
  let model: LanguageModel | undefined;
  try {
    model = await loadWeights(device, file, { experts: undefined, gpuBudgetBytes: budgetBytes });
    const weights = model;
    await use((options) => openEngine(device, weights, { ...OPTIONS, ...options }));
  } finally {
    model?.dispose();
    await file.close();
  }
}

it('takes what is left by default, and serves as many sampled requests as it admits', async () => {
  await withBudget(12 * MiB, async (open) => {
    await using engine = await open();
    expect(engine.capacityTokens).toBeGreaterThanOrEqual(256);
    expect(engine.capacityTokens).toBeLessThan(4 * engine.model.config.contextLength);
    const requests = Array.from({ length: 4 }, (_, seed) =>
      engine.submit(
        Uint32Array.from({ length: 90 }, (_, i) => 32 + ((i * (seed + 1)) % 90)),
        {
          ...{ maxTokens: 20, temperature: 1, seed },
        },
      ),
    );
    for (const request of requests) for await (const id of request) expect(id).toBeLessThan(256);
  });
});

it('takes four contexts where the budget has room', async () => {
  await withBudget(512 * MiB, async (open) => {
    await using engine = await open();
    expect(engine.capacityTokens).toBe(4 * engine.model.config.contextLength);
  });
});

it('names the tokens that would fit, and those do', async () => {
  await withBudget(12 * MiB, async (open) => {
    const error = await open({ kvTokens: 100_000 }).catch((each: unknown) => each);
    expect(String(error)).toMatch(/out-of-memory: a KV cache of 100000 tokens does not fit/);
    const most = Number(/--kv-tokens at most (\d+) fits/.exec(String(error))?.[1]);
    await using engine = await open({ kvTokens: most });
    expect(engine.capacityTokens).toBe(most);
  });
});

it('says what the weights and the activations need', async () => {
  await expect(withBudget(2 * MiB, async () => undefined)).rejects.toThrow(
    /out-of-memory: the weights do not fit --gpu-budget 2\.0 MiB: they are about \d+\.\d MiB/,
  );
  const open = withBudget(7 * MiB, async (engine) => void (await engine({ maxSequences: 32 })));
  await expect(open).rejects.toThrow(/activations do not fit --gpu-budget 7\.0 MiB beside weights/);
});

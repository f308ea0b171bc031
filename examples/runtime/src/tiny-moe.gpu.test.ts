/**
 * The runtime on tiny-moe against values that PyTorch computed in float32 from the same weights
 * (reference.json): logits, routing, and nats per byte of evaluation windows.
 *
 * Tolerances, absolute: logits 2e-3 with f32 weights and K/V, 3e-2 with f16; nats per byte 0.005.
 */
import { readFile } from 'node:fs/promises';
import { createGpu } from '@vramkit/adapter';
import { Batch, countersSince, isVramError, openDevice, type VramDevice } from '@vramkit/core';
import { full, pagedEviction, streamingLlm } from '@vramkit/eviction';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { generate, score } from './generate.js';
import { loadModel } from './load-model.js';
import { openModelFile } from './model-file.js';
import { createSession, type InferenceSession, type Sequence } from './session.js';
import type { LanguageModel } from './weights.js';

const folder = new URL('../../../tools/models/tiny-moe/', import.meta.url);
interface Reference {
  readonly input: number[];
  readonly logits_f32_base64: string;
  readonly experts: number[][][];
  readonly nats_per_byte: number[];
  readonly window_bytes: number;
}

let gpu: GPU;
let device: VramDevice;
let reference: Reference;
let evalText: Uint8Array;
beforeAll(async () => {
  ({ gpu } = await createGpu());
  device = await openDevice({ gpu });
  // The file is ours and its shape is checked by the values below.
  reference = JSON.parse(await readFile(new URL('reference.json', folder), 'utf8')) as Reference;
  evalText = await readFile(new URL('eval.txt', folder));
});
afterAll(() => device.dispose());

async function load(on: VramDevice, floats: 'f32' | 'f16' | 'as-stored'): Promise<LanguageModel> {
  const file = await openModelFile(folder.pathname);
  try {
    return await loadModel(on, file, { floats });
  } finally {
    await file.close();
  }
}

const fullCache = full({ blockSize: 16 });

async function collect(stream: AsyncIterable<number>): Promise<number[]> {
  const ids: number[] = [];
  for await (const id of stream) ids.push(id);
  return ids;
}

describe.each([
  ['f32', 2e-3],
  ['f16', 3e-2],
] as const)('in %s', (dtype, tolerance) => {
  let model: LanguageModel;
  let session: InferenceSession;
  beforeAll(async () => {
    model = await load(device, dtype);
    session = createSession(device, model, { kvTokens: 1024, kvDtype: dtype });
  });
  afterAll(() => {
    session.dispose();
    model.dispose();
  });

  it(`gives PyTorch's logits within ${tolerance}`, async () => {
    const ids = Uint32Array.from(reference.input);
    const expected = new Float32Array(
      new Uint8Array(Buffer.from(reference.logits_f32_base64, 'base64')).buffer,
    );
    const sequence = session.create(fullCache);
    const step = new Batch(device, 'reference');
    session.recordStep(step, sequence, ids);
    step.submit();
    let worst = 0;
    for (let row = 0; row < ids.length; row += session.maxLogitRows) {
      const rows = Math.min(session.maxLogitRows, ids.length - row);
      const batch = new Batch(device, 'logits');
      session.forward.logits(batch, row, rows);
      batch.submit();
      const logits = await session.forward.workspace.logits.slice(0, rows).readFloats();
      logits.forEach((value, i) => {
        worst = Math.max(worst, Math.abs(value - (expected[row * 256 + i] ?? Number.NaN)));
      });
    }
    session.free(sequence);
    expect(worst).toBeLessThan(tolerance);
  });

  it('predicts one window of each text as PyTorch does', async () => {
    const { window_bytes: size, nats_per_byte: expected } = reference;
    for (const window of [0, 16, 32]) {
      const ids = Uint32Array.from(evalText.subarray(window * size, (window + 1) * size));
      const sequence = session.create(fullCache);
      const losses = await score(session, sequence, ids);
      session.free(sequence);
      const nats = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
      expect(Math.abs(nats - (expected[window] ?? Number.NaN))).toBeLessThan(0.005);
    }
  });
});

describe('routing', () => {
  it("chooses PyTorch's experts in every layer", async () => {
    const model = await load(device, 'f32');
    const ids = Uint32Array.from(reference.input);
    for (let layer = 0; layer < model.layers.length; layer++) {
      // A model cut off behind a layer leaves that layer's choice in the workspace.
      const cut = { ...model, layers: model.layers.slice(0, layer + 1) };
      const session = createSession(device, cut, { kvTokens: 128, kvDtype: 'f32' });
      const batch = new Batch(device, 'routing');
      session.recordStep(batch, session.create(fullCache), ids);
      batch.submit();
      const chosen = await session.forward.workspace.experts?.ids.slice(0, 2 * ids.length).read();
      expect(Array.from(chosen ?? [])).toEqual(reference.experts[layer]?.flat());
      session.dispose();
    }
    model.dispose();
  });
});

describe('sequences', () => {
  let model: LanguageModel;
  let session: InferenceSession;
  const prompt = (): Uint32Array => Uint32Array.from(evalText.subarray(0, 300));
  const greedy = (sequence: Sequence, maxTokens: number): Promise<number[]> =>
    collect(generate(session, sequence, { maxTokens }));
  beforeAll(async () => {
    model = await load(device, 'as-stored');
    session = createSession(device, model, { kvTokens: 1024, chunkTokens: 64 });
  });
  afterAll(() => {
    session.dispose();
    model.dispose();
  });

  it('gives the same tokens by decoding, by another chunk size and from forks', async () => {
    const other = createSession(device, model, { kvTokens: 512, chunkTokens: 37, blockSize: 8 });
    const trunk = session.create(fullCache);
    await session.prefill(trunk, prompt());
    const fork = await session.fork(trunk, fullCache);
    const expected = await greedy(trunk, 24);
    expect(await greedy(fork, 24)).toEqual(expected);
    const again = other.create(full({ blockSize: 8 }));
    await other.prefill(again, prompt());
    expect(await collect(generate(other, again, { maxTokens: 24 }))).toEqual(expected);
    // Sampling with one candidate left is greedy decoding through the host.
    const sampled = session.create(fullCache);
    await session.prefill(sampled, prompt());
    const options = { maxTokens: 24, temperature: 1, topK: 1 };
    expect(await collect(generate(session, sampled, options))).toEqual(expected);
    for (const sequence of [trunk, fork, sampled]) session.free(sequence);
    other.dispose();
    session.sequences.check();
    expect(session.sequences.pool.usage).toBe(0);
  });

  it('creates no buffer, bind group or pipeline in a decode step after warm-up', async () => {
    for (const policy of [fullCache, pagedEviction({ budgetTokens: 64, blockSize: 16 })]) {
      const sequence = session.create(policy);
      await session.prefill(sequence, prompt());
      let given = 0;
      let before = { ...device.counters };
      for await (const id of generate(session, sequence, { maxTokens: 60, stopIds: [] })) {
        expect(id).toBeLessThan(256);
        given += 1;
        if (given === 18) before = { ...device.counters };
      }
      const created = countersSince(before, device.counters);
      session.free(sequence);
      expect(given).toBe(60);
      expect([created.buffersCreated, created.bindGroupsCreated, created.pipelinesCreated]).toEqual(
        [0, 0, 0],
      );
    }
  });

  it.each([
    pagedEviction({ budgetTokens: 80, blockSize: 16 }),
    streamingLlm({ budgetTokens: 80, blockSize: 16 }),
  ])('keeps a forked sequence within the budget of $name', async (policy) => {
    const trunk = session.create(fullCache);
    await session.prefill(trunk, prompt());
    const fork = await session.fork(trunk, policy);
    const table = session.sequences.table(fork.id);
    expect(table.cachedTokenCount).toBe(80 + (300 % 16));
    for await (const id of generate(session, fork, { maxTokens: 50 })) {
      expect(id).toBeLessThan(256);
      expect(table.cachedTokenCount).toBeLessThanOrEqual(80 + 16);
    }
    expect(table.tokenCount).toBe(349);
    expect(session.sequences.table(trunk.id).cachedTokenCount).toBe(300);
    session.sequences.check();
    session.free(fork);
    session.free(trunk);
  });

  it('equals the full cache while the budget is not reached', async () => {
    const trunk = session.create(fullCache);
    await session.prefill(trunk, prompt());
    const roomy = await session.fork(trunk, pagedEviction({ budgetTokens: 512, blockSize: 16 }));
    expect(await greedy(roomy, 20)).toEqual(await greedy(trunk, 20));
    session.free(roomy);
    session.free(trunk);
  });

  it('takes back the step that ran ahead when a caller leaves early', async () => {
    const sequence = session.create(fullCache);
    await session.prefill(sequence, prompt());
    let given = 0;
    for await (const id of generate(session, sequence, { maxTokens: 30 })) {
      expect(id).toBeLessThan(256);
      given += 1;
      if (given === 5) break;
    }
    expect(session.sequences.table(sequence.id).tokenCount).toBe(304);
    session.free(sequence);
  });

  it('rejects a prompt beyond the context and an exhausted pool, and goes on', async () => {
    const sequence = session.create(fullCache);
    await expect(session.prefill(sequence, new Uint32Array(1025))).rejects.toMatchObject({
      code: 'context-exceeded',
      context: { contextLength: 1024 },
    });
    const small = createSession(device, model, { kvTokens: 64 });
    const cramped = small.create(fullCache);
    await expect(small.prefill(cramped, prompt())).rejects.toMatchObject({ code: 'out-of-memory' });
    small.free(cramped);
    small.dispose();
    await session.prefill(sequence, prompt());
    expect((await greedy(sequence, 3)).length).toBe(3);
    session.free(sequence);
  });

  it('stops when aborted, and the sequence can go on', async () => {
    const sequence = session.create(fullCache);
    await session.prefill(sequence, prompt());
    const controller = new AbortController();
    const stream = generate(session, sequence, { maxTokens: 30, signal: controller.signal });
    let given = 0;
    const run = async (): Promise<void> => {
      for await (const id of stream) {
        given += 1;
        if (given === 4) controller.abort(id);
      }
    };
    await expect(run()).rejects.toMatchObject({ code: 'aborted' });
    expect(session.sequences.table(sequence.id).tokenCount).toBe(303);
    await session.prefill(sequence, Uint32Array.of(32));
    expect((await greedy(sequence, 2)).length).toBe(2);
    session.free(sequence);
  });
});

describe('device loss and budget', () => {
  it('rejects a generation with device-lost, leaks nothing, and a new device answers', async () => {
    const doomed = await openDevice({ gpu });
    const model = await load(doomed, 'as-stored');
    const session = createSession(doomed, model, { kvTokens: 256 });
    const sequence = session.create(fullCache);
    await session.prefill(sequence, Uint32Array.from(evalText.subarray(0, 50)));
    const run = async (): Promise<void> => {
      let given = 0;
      for await (const id of generate(session, sequence, { maxTokens: 100 })) {
        given += id >= 0 ? 1 : 0;
        if (given === 5) doomed.gpuDevice.destroy();
      }
    };
    await expect(run()).rejects.toMatchObject({ code: 'device-lost' });
    session.dispose();
    model.dispose();
    const { kv, weights, activations } = doomed.memory.stats().liveBytesByKind;
    expect([kv, weights, activations]).toEqual([0, 0, 0]);
    doomed.dispose();

    const fresh = await openDevice({ gpu });
    const reloaded = await load(fresh, 'as-stored');
    const next = createSession(fresh, reloaded, { kvTokens: 256 });
    const restored = next.create(fullCache);
    await next.prefill(restored, Uint32Array.from(evalText.subarray(0, 50)));
    expect((await collect(generate(next, restored, { maxTokens: 5 }))).length).toBe(5);
    next.dispose();
    reloaded.dispose();
    fresh.dispose();
  });

  it('needs every byte of its budget: one less names the kind and the shortfall', async () => {
    const free = await openDevice({ gpu });
    const measured = await load(free, 'as-stored');
    const roomy = createSession(free, measured, { kvTokens: 256 });
    const needed = free.memory.stats().peakReservedBytes;
    roomy.dispose();
    measured.dispose();
    free.dispose();

    const attempt = async (budgetBytes: number): Promise<unknown> => {
      const tight = await openDevice({ gpu, budgetBytes });
      try {
        const model = await load(tight, 'as-stored');
        try {
          createSession(tight, model, { kvTokens: 256 }).dispose();
        } finally {
          model.dispose();
        }
        return undefined;
      } catch (error) {
        return error;
      } finally {
        tight.dispose();
      }
    };
    expect(await attempt(needed)).toBeUndefined();
    const error = await attempt(needed - 1);
    expect(isVramError(error, 'out-of-memory') && error.context).toMatchObject({
      shortfallBytes: 1,
    });
  });
});

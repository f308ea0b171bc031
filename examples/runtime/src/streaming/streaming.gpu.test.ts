/** A model of twice the budget gives the tokens that it gives without one. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createGpu } from '@vramkit/adapter';
import { countersSince, openDevice, type VramDevice } from '@vramkit/core';
import { full } from '@vramkit/eviction';
import {
  chromeTrace,
  checkChromeTrace,
  laneSpans,
  overlapMs,
  overlapTable,
  Timeline,
} from '@vramkit/trace';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createBatchEngine } from '../batching/batch-engine.js';
import { generate, score } from '../generate.js';
import { openModelFile, type ModelFile } from '../model-file.js';
import { writeSeededDense } from '../testing/seeded-dense.js';
import { openSession, type OpenedSession } from './open-session.js';

const tinyMoe = new URL('../../../../tools/models/tiny-moe/', import.meta.url).pathname;
const SIZES = { kvTokens: 96, chunkTokens: 8, maxLogitRows: 4, floats: 'f16' } as const;
const prompt = Uint32Array.from({ length: 30 }, (_, i) => 97 + ((i * 7) % 26));

let gpu: GPU;
let folder: string;
beforeAll(async () => {
  ({ gpu } = await createGpu());
  folder = await mkdtemp(join(tmpdir(), 'vramkit-stream-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Run {
  readonly tokens: number[];
  readonly losses: number[];
  readonly weightBytes: number;
}

async function runAll(device: VramDevice, { session }: OpenedSession): Promise<Run> {
  const sequence = session.create(full({ blockSize: 16 }));
  await session.prefill(sequence, prompt);
  const tokens: number[] = [];
  let before = { ...device.counters };
  for await (const id of generate(session, sequence, { maxTokens: 40, stopIds: [] })) {
    tokens.push(id);
    if (tokens.length === 18) before = { ...device.counters };
  }
  const created = countersSince(before, device.counters);
  expect([created.buffersCreated, created.bindGroupsCreated, created.pipelinesCreated]).toEqual([
    0, 0, 0,
  ]);
  session.free(sequence);
  const scored = session.create(full({ blockSize: 16 }));
  const losses = [...(await score(session, scored, prompt))];
  session.free(scored);
  const weightBytes = device.memory.stats().liveBytesByKind.weights;
  return { tokens, losses, weightBytes };
}

async function without(file: ModelFile): Promise<Run> {
  const device = await openDevice({ gpu });
  const opened = await openSession(device, file, SIZES);
  expect(opened.placement.streaming).toBe('none');
  const run = await runAll(device, opened);
  opened.dispose();
  device.dispose();
  return run;
}

describe.each([
  ['dense', () => writeSeededDense(folder, 16, 11), 'double-buffered'],
  ['with experts', () => Promise.resolve(tinyMoe), 'single-buffered'],
] as const)('a model %s', (_name, path, streaming) => {
  let file: ModelFile;
  let expected: Run;
  beforeAll(async () => {
    file = await openModelFile(await path());
    expected = await without(file);
  });
  afterAll(() => file.close());

  it('gives the same tokens and losses in half the bytes of its weights', async () => {
    const budgetBytes = Math.floor(expected.weightBytes / 2);
    const device = await openDevice({ gpu, budgetBytes });
    const timeline = new Timeline();
    using opened = await openSession(device, file, { ...SIZES, trace: timeline.sink });
    const { placement } = opened;
    expect(placement.streaming).toBe(streaming);
    expect(placement.units.weights.host).toBeGreaterThan(placement.units.weights.device);
    const run = await runAll(device, opened);
    expect(run.tokens).toEqual(expected.tokens);
    expect(new Set(run.tokens).size).toBeGreaterThan(3);
    expect(run.losses).toEqual(expected.losses);
    expect(device.memory.stats().peakReservedBytes).toBeLessThanOrEqual(budgetBytes);
    await device.settle();
    const spans = laneSpans(timeline.events);
    const uploads = spans.filter(({ lane }) => lane === 'upload');
    // Every streamed layer of every pass went up whole, the first pass included.
    expect(uploads.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)).toBeGreaterThan(
      60 * expected.weightBytes * 0.4,
    );
    if (streaming === 'double-buffered') {
      // Nothing overlaps where the host waits for each layer; a busy machine takes its part.
      const uploadMs = uploads.reduce((sum, { startMs, endMs }) => sum + endMs - startMs, 0);
      expect(overlapMs(spans, 'upload', 'gpu') / uploadMs).toBeGreaterThan(0.02);
    }
    expect(overlapTable(timeline.events).rows[0]?.[0]).toBe('upload and gpu');
    checkChromeTrace(JSON.parse(JSON.stringify(chromeTrace(timeline.events))));
    opened.dispose();
    const { weights, staging } = device.memory.stats().liveBytesByKind;
    expect(weights).toBe(0);
    expect(staging).toBeLessThan(budgetBytes / 8); // readbacks, kept for reuse
    device.dispose();
  });

  it('serves several sequences at once, and leaves in the middle of one', async () => {
    const budgetBytes = Math.floor(expected.weightBytes * 0.75);
    const spareBytes = Math.floor(expected.weightBytes * 0.2);
    const device = await openDevice({ gpu, budgetBytes });
    using opened = await openSession(device, file, { ...SIZES, kvTokens: 16, spareBytes });
    expect(opened.placement.streaming).not.toBe('none');
    const options = { kvTokens: 112, chunkTokens: 8, maxSequences: 2 };
    const engine = createBatchEngine(device, opened.model, options);
    const both = [0, 1].map(() => engine.submit(prompt, { maxTokens: 20, stopIds: [] }));
    for (const each of both) {
      const tokens: number[] = [];
      for await (const id of each) tokens.push(id);
      expect(tokens).toEqual(expected.tokens.slice(0, 20));
    }
    await engine.dispose();
    const { session } = opened;
    const sequence = session.create(full({ blockSize: 16 }));
    await session.prefill(sequence, prompt.subarray(0, 4));
    for await (const id of generate(session, sequence, { maxTokens: 8, stopIds: [] })) {
      expect(id).toBeLessThan(256);
      break;
    }
    expect(session.sequences.table(sequence.id).tokenCount).toBe(4);
    await session.prefill(sequence, prompt.subarray(4, 8));
    opened.dispose();
    device.dispose();
  });
});

it('says what is missing where not one layer fits, and takes nothing', async () => {
  const file = await openModelFile(tinyMoe);
  const device = await openDevice({ gpu, budgetBytes: 1_500_000 });
  const { liveBytes } = device.memory.stats();
  await expect(openSession(device, file, SIZES)).rejects.toMatchObject({
    code: 'out-of-memory',
    context: { kind: 'weights' },
  });
  expect(device.memory.stats().liveBytes).toBe(liveBytes);
  device.dispose();
  await file.close();
});

it('rejects with device-lost where the device goes while layers are on their way', async () => {
  const file = await openModelFile(tinyMoe);
  const device = await openDevice({ gpu, budgetBytes: 3_450_000 });
  const opened = await openSession(device, file, SIZES);
  const sequence = opened.session.create(full({ blockSize: 16 }));
  await opened.session.prefill(sequence, prompt);
  const run = async (): Promise<void> => {
    let given = 0;
    for await (const id of generate(opened.session, sequence, { maxTokens: 30, stopIds: [] })) {
      given += id >= 0 ? 1 : 0;
      if (given === 3) device.gpuDevice.destroy();
    }
  };
  await expect(run()).rejects.toMatchObject({ code: 'device-lost' });
  opened.dispose();
  device.dispose();
  await file.close();
});

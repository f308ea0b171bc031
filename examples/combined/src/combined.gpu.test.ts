/**
 * The quick form of the pipeline, from the first step of training to the second process.
 * SwiftShader takes minutes for its training, so it runs there only where there is no other
 * adapter.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createGpu, usableAdapters } from '@vramkit/adapter';
import { openDevice } from '@vramkit/core';
import { checkpointsIn } from '@vramkit/example-train';
import { Checkpoints, posixStore, readBlob, type BlobStore } from '@vramkit/storage';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { LifeRecord } from './life.js';
import { parseOptions, type CombinedOptions } from './options.js';
import { checkReport, runPipeline, type CombinedReport } from './pipeline.js';
import { writeReport } from './report.js';
import { serveInProcess } from './serve-process.js';
import { checkpointTensors } from './weights.js';

const STAGES = ['train', 'checkpoint', 'pack', 'serve cold', 'restart', 'serve warm'];

let folder: string;
let options: CombinedOptions;
let text: Uint8Array;
let report: CombinedReport;
let record: LifeRecord;
/** Buffers that this process' devices created, whoever asked for them. */
let created = 0;

const log = (): void => undefined;
const isSlow = process.env['VRAMKIT_ADAPTER'] === 'swiftshader' && usableAdapters().length > 1;
if (isSlow) {
  process.stderr.write(
    'the combined pipeline skipped: minutes here, and another adapter runs it\n',
  );
}

/** Counts the buffers of all devices from now on; gives the end of that. */
async function countBuffers(): Promise<() => void> {
  const { gpu } = await createGpu();
  using device = await openDevice({ gpu });
  const methods = Object.getPrototypeOf(device.gpuDevice) as GPUDevice;
  const create = Object.getOwnPropertyDescriptor(methods, 'createBuffer')
    ?.value as GPUDevice['createBuffer'];
  methods.createBuffer = function (this: GPUDevice, descriptor) {
    created += 1;
    return create.call(this, descriptor);
  };
  return () => void (methods.createBuffer = create);
}

/** Every key of a store with a hash of its bytes. */
async function contents(store: BlobStore): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for await (const { key } of store.list('')) {
    found[key] = createHash('sha256')
      .update(await readBlob(store, key))
      .digest('hex');
  }
  return found;
}

describe.skipIf(isSlow)('the combined pipeline', () => {
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vramkit-combined-test-'));
    const parsed = parseOptions(['--quick', '--out', folder], '/');
    if (parsed === 'help') throw new Error('no help was asked for');
    options = parsed;
    const chapter = '../../generate/texts/moby-dick-chapter-1.txt';
    text = await readFile(new URL(chapter, import.meta.url));
    const stop = await countBuffers();
    ({ report, record } = await runPipeline(options, { text, log }).finally(stop));
  }, 600_000);
  afterAll(() => rm(folder, { recursive: true }));

  it('goes through all stages within one budget', () => {
    const { stages, gpuBudgetBytes, peakBytes } = report;
    expect(stages.map(({ name }) => name)).toEqual(STAGES);
    for (const stage of stages) {
      expect(stage.peakBytes).toBeLessThanOrEqual(gpuBudgetBytes);
      const sum = Object.values(stage.byKind).reduce((total, bytes) => total + bytes, 0);
      expect(sum).toBe(stage.peakBytes);
    }
    // What the ledger of the device counted is what the trace saw, rounded up to 4 bytes each.
    const largest = Math.max(...stages.map(({ peakBytes: own }) => own));
    expect(peakBytes).toBeGreaterThanOrEqual(largest);
    expect(peakBytes - largest).toBeLessThan(4096);
    const [train, , , cold, , warm] = stages;
    const { activations, gradients, optimizer, weights } = train?.byKind ?? {};
    expect(Math.min(activations ?? 0, gradients ?? 0, optimizer ?? 0)).toBeGreaterThan(2 ** 20);
    // Parameters twice, 4 bytes each: the state does not fit beside them and the rest.
    expect(weights).toBeGreaterThan(2 * 4 * report.train.parameterCount - 1);
    for (const stage of [cold, warm]) expect(stage?.byKind.kv).toBeGreaterThan(0);
    // The budget is no ornament: with all of the optimizer's state on the device it would not do.
    const resident = report.train.stateBytes - 4 * report.train.parameterCount;
    expect((train?.peakBytes ?? 0) - (optimizer ?? 0) + resident).toBeGreaterThan(gpuBudgetBytes);
  });

  it('has no buffer that the budget does not know', () => {
    const { startMs = 0 } = report.stages[4] ?? {}; // what follows is of the second process
    const known = record.events.filter(
      ({ type, timeMs }) => type === 'allocate' && timeMs < startMs,
    );
    expect(known.length).toBeGreaterThan(1000);
    // One of 4 bytes is made, and destroyed at once, to learn the class of buffers.
    expect(created).toBe(known.length + 1);
  });

  it('fails where a stage exceeds the budget, or the second process answers otherwise', () => {
    const exceeded = { ...report, gpuBudgetBytes: (report.stages[0]?.peakBytes ?? 0) - 1 };
    expect(() => checkReport(exceeded)).toThrow(/train: .* exceed/);
    expect(() => checkReport({ ...report, peakBytes: report.gpuBudgetBytes + 1 })).toThrow(/all:/);
    const other = { ...report.warm, answers: report.warm.answers.slice(1) };
    expect(() => checkReport({ ...report, warm: other })).toThrow(/answers differently/);
    const cold = { ...report.warm, restoredTokens: 0 };
    expect(() => checkReport({ ...report, warm: cold })).toThrow(/no prefix/);
  });

  it('learns, and loses little of it by packing', () => {
    const { train, firstLoss, pack } = report;
    expect(train.steps).toHaveLength(options.steps);
    expect(pack.unpackedLoss).toBeLessThan(firstLoss - 0.005);
    expect(pack.fileBytes).toBeLessThanOrEqual(pack.targetBytes);
    expect(pack.fileBytes).toBeLessThan(pack.unpackedBytes / 3);
    expect(pack.bitsPerWeight).toBeLessThanOrEqual(3);
    expect(pack.loss).not.toBe(pack.unpackedLoss);
    expect(pack.loss - pack.unpackedLoss).toBeLessThan(0.15);
  });

  it('leaves checkpoints that are whole: one to go on from, one for other tools', async () => {
    const store = await posixStore({ folder: options.store });
    const state = await checkpointsIn(store).latest();
    expect(state?.step).toBe(options.steps);
    const weights = new Checkpoints(store, { prefix: 'weights/' });
    const manifest = await weights.latest();
    if (state === undefined || manifest === undefined) throw new Error('both were saved');
    await weights.verify(manifest);
    for (const { name, bytes } of checkpointTensors(state.parameters)) {
      expect(Buffer.compare(await weights.read(manifest, name), bytes)).toBe(0);
    }
  });

  it('answers from the store as before, without computing the prefix again', () => {
    const { cold, warm } = report;
    expect(warm.answers).toEqual(cold.answers);
    expect(warm.answers).toHaveLength(6);
    expect(warm.firstTokenMs).toHaveLength(3);
    expect(warm.policies.map(({ answer }) => answer)).toEqual(
      cold.policies.map(({ answer }) => answer),
    );
    expect(cold.restoredTokens).toBe(0);
    expect(cold.storedBlocks).toBeGreaterThan(0);
    // Three prompts of 160 bytes, and an end each that fills no block.
    expect(warm.promptTokens - warm.restoredTokens).toBe(3 * '\n\nAhab '.length);
  });

  it('keeps experts and K/V within their budgets', () => {
    const { experts, policies } = report.warm;
    expect(Math.min(experts.hits, experts.misses, experts.evictions)).toBeGreaterThan(0);
    const { weights = 0 } = report.stages[5]?.byKind ?? {};
    // Embedding, attention and routers are in bf16 beside them.
    expect(weights).toBeLessThan(experts.budgetBytes + 600_000);
    const [full, paged] = policies;
    expect(full?.heldTokens).toBeGreaterThan(170);
    // The budget, and the block that is being filled.
    expect(paged?.heldTokens).toBeLessThanOrEqual(64 + 16);
    expect(paged?.kvBytes).toBeLessThan((full?.kvBytes ?? 0) / 2);
    expect(paged?.loss).not.toBe(full?.loss);
  });

  it('writes a page and figures with all stages', async () => {
    const path = await writeReport(folder, report, record);
    const page = await readFile(path, 'utf8');
    for (const name of STAGES) expect(page).toContain(`<td>${name}</td>`);
    const json = JSON.parse(await readFile(join(folder, 'report.json'), 'utf8')) as {
      readonly stages: readonly { readonly name: string }[];
      readonly memory: readonly object[];
    };
    expect(json.stages.map(({ name }) => name)).toEqual(STAGES);
    expect(json.memory).toHaveLength(record.events.length);
  });

  it('names what does not fit a small budget, and leaves the store as it was', async () => {
    const store = await posixStore({ folder: options.store });
    const before = await contents(store);
    const small = { ...options, gpuBudgetBytes: 60 * 2 ** 20 };
    await expect(runPipeline(small, { text, log })).rejects.toMatchObject({
      code: 'out-of-memory',
      context: { kind: 'activations', label: 'TensorFlow.js', limitBytes: 60 * 2 ** 20 },
    });
    const tiny = { ...options, gpuBudgetBytes: 20 * 2 ** 20 };
    await expect(runPipeline(tiny, { text, log })).rejects.toMatchObject({
      code: 'out-of-memory',
      context: { kind: 'optimizer', neededBytes: 425_984 },
    });
    // A target that no widths reach is known before anything is trained.
    const lines: string[] = [];
    const unreachable = { ...options, target: { fileBytes: 1e6 } };
    const told = { text, log: (line: string) => void lines.push(line) };
    await expect(runPipeline(unreachable, told)).rejects.toMatchObject({
      code: 'invalid-argument',
      context: { targetBytes: 1e6 },
    });
    expect(lines).toEqual([]);
    expect(await contents(store)).toEqual(before);
    expect(Object.keys(before).length).toBeGreaterThan(10);
  });

  it('says what a serving process failed with', async () => {
    const tokens = Array.from({ length: 40 }, (_, at) => 97 + (at % 26));
    const request = {
      ...{ alone: [tokens], together: [tokens], warmUp: tokens, longText: tokens },
      ...{ heldOut: tokens, maxTokens: 2, kvBudgetTokens: 48, expertBytes: 600_000 },
    };
    const order = { ...{ originMs: 0, startMs: 0, request }, budgetBytes: 2 ** 26 };
    const empty = join(folder, 'nothing');
    await expect(serveInProcess({ ...order, store: empty })).rejects.toMatchObject({
      code: 'not-found',
      message: expect.stringContaining('packed/model.safetensors'),
    });
    const small = { ...order, store: options.store, budgetBytes: 2 ** 20 };
    await expect(serveInProcess(small)).rejects.toMatchObject({
      code: 'out-of-memory',
      context: { neededBytes: expect.any(Number) },
      message: expect.stringMatching(/^out-of-memory: needed \d+ B of kind/),
    });
  });
});

/**
 * The pipeline: train, checkpoint, pack, serve, and serve again from nothing but the store, with
 * one limit on device memory from the first byte to the last.
 */
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createGpu } from '@vramkit/adapter';
import { assertInvariant, openDevice, type VramDevice } from '@vramkit/core';
import { checkpointsIn } from '@vramkit/example-train';
import { meanLoss, openMoeModel, type MoeModel } from '@vramkit/example-moe-pack';
import { Checkpoints, readBlob, type BlobStore, type CheckpointManifest } from '@vramkit/storage';
import { openStore } from '@vramkit/storage/store-url';
import { Life, stageFigures, type LifeRecord, type StageFigures } from './life.js';
import { checkTarget, packStage, type PackFigures } from './pack-stage.js';
import type { CombinedOptions } from './options.js';
import { serveInProcess } from './serve-process.js';
import {
  MODEL_FILES,
  openServing,
  PACKED,
  type ServeFigures,
  type ServeRequest,
} from './serve-stage.js';
import { trainStage, type FirstState, type TrainFigures } from './train-stage.js';
import { checkpointTensors, flatParameters } from './weights.js';

/** The published weights, and the configuration of all that is made of them. */
const PUBLISHED = fileURLToPath(new URL('../../../tools/models/tiny-moe/', import.meta.url));
const WEIGHTS = 'weights/';

/** A checkpoint in the store. */
export interface CheckpointFigures {
  readonly name: string;
  /** Bytes of the optimizer's state, and of the weights beside it. */
  readonly stateBytes: number;
  readonly weightBytes: number;
}

/** All figures of a run; plain data. */
export interface CombinedReport {
  readonly driver: string;
  readonly gpuBudgetBytes: number;
  readonly storeName: string;
  readonly stages: readonly StageFigures[];
  /** Highest bytes that the memory of either process' device counted. */
  readonly peakBytes: number;
  readonly train: TrainFigures;
  /** Mean loss of held-out text under the weights that the training began with. */
  readonly firstLoss: number;
  readonly checkpoint: CheckpointFigures;
  readonly pack: PackFigures;
  /** The end of the first prompt. */
  readonly question: string;
  readonly cold: ServeFigures;
  readonly warm: ServeFigures;
}

/** What a run needs beside its options. */
export interface PipelineInput {
  /** Text to learn; its end is held out. */
  readonly text: Uint8Array;
  readonly log: (line: string) => void;
}

/** Sizes of the two forms. */
const FULL = { windows: 8, windowBytes: 257, prefix: 448, answer: 32, long: 640, kvBudget: 160 };
const QUICK = { windows: 4, windowBytes: 129, prefix: 160, answer: 12, long: 176, kvBudget: 64 };
const HELD_OUT_BYTES = 8192;
const SCORED_BYTES = 48;
/** Prompts that are asked one after the other. */
const ALONE = 3;
/** What prompts end with that are asked at once. */
const TAILS = ['\n\nThe whale ', '\n\nThe sea ', '\n\nAnd so '];

/** Texts of a run: to learn, to judge by, and to ask with. */
function splitText(text: Uint8Array, sizes: typeof FULL) {
  const learnt = text.subarray(0, -HELD_OUT_BYTES);
  const heldOut = text.subarray(-HELD_OUT_BYTES);
  const half = HELD_OUT_BYTES / 2;
  const step = Math.floor(half / sizes.windows);
  const windows = Array.from({ length: sizes.windows }, (_, index) =>
    Uint32Array.from(heldOut.subarray(index * step, index * step + sizes.windowBytes)),
  );
  const beginning = (index: number): Uint8Array =>
    heldOut.subarray(half + index * sizes.prefix, half + (index + 1) * sizes.prefix);
  const prompt = (index: number, tail: string): number[] => [
    ...beginning(index),
    ...new TextEncoder().encode(tail),
  ];
  const long = heldOut.subarray(half + ALONE * sizes.prefix);
  const asked = {
    alone: Array.from({ length: ALONE }, (_, index) => prompt(index, '\n\nAhab ')),
    together: TAILS.map((tail) => prompt(0, tail)),
    warmUp: [...heldOut.subarray(0, sizes.prefix)],
    maxTokens: sizes.answer,
    longText: [...long.subarray(0, sizes.long)],
    heldOut: [...long.subarray(sizes.long, sizes.long + SCORED_BYTES)],
    kvBudgetTokens: sizes.kvBudget,
  };
  return { learnt, windows, asked };
}

/** The weights of a checkpoint as a model's folder. */
async function fetchWeights(
  store: BlobStore,
  manifest: CheckpointManifest,
  folder: string,
): Promise<void> {
  await new Checkpoints(store, { prefix: WEIGHTS }).verify(manifest);
  const [shard, more] = manifest.shards;
  assertInvariant(shard !== undefined && more === undefined, 'the weights are not one shard');
  const bytes = await readBlob(store, `${WEIGHTS}${manifest.name}/${shard.file}`);
  await writeFile(join(folder, 'model.safetensors'), bytes);
  await copyFile(join(PUBLISHED, 'config.json'), join(folder, 'config.json'));
}

/** The published weights, open while they are in use. */
async function withPublished<T>(use: (model: MoeModel) => T | Promise<T>): Promise<T> {
  const model = await openMoeModel(PUBLISHED);
  try {
    return await use(model);
  } finally {
    await model.close();
  }
}

/** State to go on from, and a folder with its weights. */
async function firstState(
  store: BlobStore,
  folder: string,
): Promise<{ readonly state: FirstState; readonly folder: string }> {
  const state = await checkpointsIn(store).latest();
  const manifest = await new Checkpoints(store, { prefix: WEIGHTS }).latest();
  if (state !== undefined && manifest !== undefined) {
    await fetchWeights(store, manifest, folder);
    return { state, folder };
  }
  const parameters = await withPublished(({ tensors }) => flatParameters(tensors));
  return { state: { parameters }, folder: PUBLISHED };
}

/** Saves what the training goes on from, and the weights as other tools read them. */
async function saveCheckpoint(
  store: BlobStore,
  state: Parameters<ReturnType<typeof checkpointsIn>['save']>[0],
): Promise<{ readonly manifest: CheckpointManifest; readonly figures: CheckpointFigures }> {
  await checkpointsIn(store).save(state);
  const name = `step-${String(state.step).padStart(8, '0')}`;
  const weights = new Checkpoints(store, { prefix: WEIGHTS });
  const manifest = await weights.save(name, checkpointTensors(state.parameters));
  await weights.prune({ keep: 2 });
  const weightBytes = manifest.shards.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return { manifest, figures: { name, stateBytes: 12 * state.parameters.length, weightBytes } };
}

function firstTokens({ firstTokenMs, restoredTokens, promptTokens }: ServeFigures): string {
  const times = firstTokenMs.map((ms) => ms.toFixed(0)).join(', ');
  return `${restoredTokens} of ${promptTokens} tokens restored, first ones after ${times} ms`;
}

/** What the first process does, on one device. */
async function firstProcess(
  device: VramDevice,
  store: BlobStore,
  work: string,
  { life, options, input }: { life: Life; options: CombinedOptions; input: PipelineInput },
) {
  const { steps, target, quick } = options;
  const { text, log } = input;
  await withPublished((model) => checkTarget(model, target));
  const { learnt, windows, asked } = splitText(text, quick ? QUICK : FULL);
  const stage = <T>(name: string, body: () => Promise<T>): Promise<T> =>
    life.stage(name, body).catch((error: unknown) => {
      log(`failed: ${name}`);
      throw error;
    });
  const { firstLoss, state, train } = await stage('train', async () => {
    const first = await firstState(store, work);
    const loss = await meanLoss(device, first.folder, windows);
    const result = await trainStage(device, { text: learnt, steps, state: first.state, log });
    return { firstLoss: loss, state: result.state, train: result.figures };
  });
  const { manifest, figures: checkpoint } = await stage('checkpoint', () =>
    saveCheckpoint(store, state),
  );
  log(`checkpoint ${checkpoint.name}`);
  const pack = await stage('pack', async () => {
    await fetchWeights(store, manifest, work);
    const packed = await packStage(device, work, { target, windows });
    for (const name of MODEL_FILES) {
      await store.put(PACKED + name, await readFile(join(packed.folder, name)));
    }
    return packed.figures;
  });
  log(`packed: ${pack.fileBytes} of ${pack.targetBytes} B, loss ${pack.loss.toFixed(4)}`);
  const expertBytes = options.expertBytes ?? Math.floor(pack.expertBytes / 2);
  const request: ServeRequest = { ...asked, expertBytes };
  const cold = await stage('serve cold', async () => {
    const serving = await openServing(device, store, join(work, 'served'), request);
    try {
      return await serving.run();
    } finally {
      await serving.dispose();
    }
  });
  log(`served cold: ${firstTokens(cold)}`);
  return { train, firstLoss, checkpoint, pack, cold, request };
}

/**
 * Runs everything.
 * @throws VramError `out-of-memory` naming what did not fit the limit, `invalid-argument` for a
 * target that no widths reach; whatever the store throws. What the store had stays.
 */
export async function runPipeline(
  options: CombinedOptions,
  input: PipelineInput,
): Promise<{ readonly report: CombinedReport; readonly record: LifeRecord }> {
  const { gpuBudgetBytes: budgetBytes } = options;
  const life = new Life();
  const work = await mkdtemp(join(tmpdir(), 'vramkit-combined-'));
  await using store = await openStore(options.store, {
    load: (name) => import(name),
    random: Math.random,
  });
  try {
    const { gpu, driver } = await createGpu();
    let peakBytes: number;
    let first;
    {
      using device = await openDevice({ gpu, budgetBytes, trace: life.trace });
      first = await firstProcess(device, store, work, { life, options, input });
      peakBytes = device.memory.stats().peakReservedBytes;
    }
    const { request, ...figures } = first;
    const question = new TextDecoder().decode(Uint8Array.from(request.alone[0]?.slice(-40) ?? []));
    const startMs = life.trace.now();
    const order = { store: options.store, budgetBytes, originMs: life.originMs, startMs, request };
    const again = await serveInProcess(order);
    life.append(again.life);
    input.log(`served warm: ${firstTokens(again.figures)}`);
    const record = life.record();
    const report: CombinedReport = {
      driver,
      gpuBudgetBytes: budgetBytes,
      storeName: store.name,
      stages: stageFigures(record),
      peakBytes: Math.max(peakBytes, again.peakBytes),
      ...{ ...figures, question, warm: again.figures },
    };
    checkReport(report);
    return { report, record };
  } finally {
    await rm(work, { recursive: true });
  }
}

/**
 * What must hold of every run.
 * @throws VramError `invariant`.
 */
export function checkReport(report: CombinedReport): void {
  const { gpuBudgetBytes, peakBytes, stages, cold, warm, pack } = report;
  for (const { name, peakBytes: own } of [...stages, { name: 'all', peakBytes }]) {
    assertInvariant(own <= gpuBudgetBytes, `${name}: ${own} B exceed ${gpuBudgetBytes} B`);
  }
  assertInvariant(pack.fileBytes <= pack.targetBytes, 'the packed file exceeds its target');
  const answers = ({ answers: own, policies }: ServeFigures): string =>
    JSON.stringify([own, policies.map(({ answer }) => answer)]);
  assertInvariant(answers(cold) === answers(warm), 'the second process answers differently');
  assertInvariant(warm.restoredTokens > 0, 'the second process found no prefix in the store');
}

/**
 * Runs the cells of a study that have no result yet.
 *
 * The context of a document is read once; each cell then works on a fork of it under its own policy
 * and leaves the trunk as it was.
 */
import type { VramDevice } from '@vramkit/core';
import { full, type KvPolicy } from '@vramkit/eviction';
import {
  createSession,
  type InferenceSession,
  type LanguageModel,
  type Sequence,
  type Tokenizer,
} from '@vramkit/example-runtime';
import { attendAll, survivorErrors, type LayerAttention } from './attention-error.js';
import type { StudyDocument } from './documents.js';
import { cellName, policyOf, type Cell, type Stage } from './grid.js';
import { argmax, divergence, logSoftmax, mean } from './metrics.js';
import type { AnswerFigures, CellResult, ContinuationFigures, ResultStore } from './results.js';
import { buildRetrieval, type Question } from './retrieval.js';
import { isServedBySaved, restoreContext, saveContext } from './saved-context.js';
import { scoreMeaning } from './score-meaning.js';
import { captureLayers, feed } from './teacher-forcing.js';

/** What all cells of a study share. */
export interface StudySetup {
  readonly device: VramDevice;
  readonly driver: string;
  readonly modelName: string;
  readonly model: LanguageModel;
  readonly tokenizer: Tokenizer;
  /** Tokens that are read before anything is evicted. */
  readonly contextTokens: number;
  /** Tokens of the true continuation that are predicted. */
  readonly continuationTokens: number;
  readonly store: ResultStore;
  readonly log: (line: string) => void;
  readonly signal?: AbortSignal;
}

/** New tokens whose attention is compared with that of the full cache. */
const OBSERVED_QUERIES = 8;
/** Blocks of decode steps that are timed, after one that is not. */
const TIMED_BLOCKS = 2;

/** Runs a stage on a document; only what is missing. */
export async function runStage(
  setup: StudySetup,
  stage: Stage,
  document: StudyDocument,
): Promise<void> {
  const { store, log } = setup;
  const done = await store.done(document.name);
  const missing = stage.cells.filter((cell) => !done.has(cellName(cell)));
  if (missing.length === 0) return;
  const policies = new Map<Cell, KvPolicy>();
  for (const cell of missing) {
    const policy = policyOf(cell, setup.contextTokens);
    if (typeof policy === 'string') await put(setup, document, cell, { refused: policy });
    else policies.set(cell, policy);
  }
  const { contextTokens, continuationTokens } = setup;
  const session = createSession(setup.device, setup.model, {
    // The trunk, a fork that shares nothing, and questions.
    kvTokens: 2 * (contextTokens + continuationTokens) + 8 * stage.blockSize,
    blockSize: stage.blockSize,
  });
  try {
    const start = performance.now();
    const name = `${document.name}, ${stage.part}, blocks of ${stage.blockSize}`;
    const run = STUDIES[stage.part];
    await run({ ...setup, session, stage, document, policies });
    const seconds = (performance.now() - start) / 1000;
    log(`${name}: ${missing.length} cells in ${seconds.toFixed(0)} s`);
  } finally {
    session.dispose();
  }
}

type StageRun = StudySetup & {
  readonly session: InferenceSession;
  readonly stage: Stage;
  readonly document: StudyDocument;
  readonly policies: ReadonlyMap<Cell, KvPolicy>;
};

const STUDIES = { continuation, scores, retrieval, decode } as const;

function put(
  setup: StudySetup,
  { name: document, half }: StudyDocument,
  cell: Cell,
  figures: Partial<CellResult>,
): Promise<void> {
  const { modelName: model, driver, contextTokens, store } = setup;
  return store.put({ model, driver, document, half, contextTokens, cell, ...figures });
}

/** A trunk that holds a context, measured for all policies of the run. */
async function readContext(run: StageRun, ids: Uint32Array): Promise<Sequence> {
  const { session, stage, document, store, signal } = run;
  const kind = stage.part === 'retrieval' ? 'retrieval' : 'text';
  const path = await store.contextPath(document.name, kind);
  const policy = full({ blockSize: stage.blockSize });
  const policies = [...run.policies.values()];
  const saved = policies.every(isServedBySaved)
    ? await restoreContext(path, session, policy, ids.length)
    : undefined;
  if (saved !== undefined) return saved;
  const trunk = session.create(policy, policies);
  await session.prefill(trunk, ids, signal === undefined ? {} : { signal });
  await saveContext(path, session, trunk);
  return trunk;
}

/** Calls `measure` with a fork under the policy of each cell, and keeps what it gives. */
async function eachFork(
  run: StageRun,
  trunk: Sequence,
  measure: (fork: Sequence, prefillEvictionMs: number) => Promise<Partial<CellResult>>,
): Promise<void> {
  const { session, device, document } = run;
  for (const [cell, policy] of run.policies) {
    run.signal?.throwIfAborted();
    const start = performance.now();
    const fork = await session.fork(trunk, policy);
    await device.settle();
    const result = await measure(fork, performance.now() - start);
    session.free(fork);
    await put(run, document, cell, result);
  }
}

async function continuation(run: StageRun): Promise<void> {
  const { session, contextTokens, continuationTokens } = run;
  const ids = textIds(run, continuationTokens);
  const end = contextTokens + continuationTokens;
  const next = ids.slice(contextTokens, end);
  const targets = ids.slice(contextTokens + 1, end + 1);
  const trunk = await readContext(run, ids.slice(0, contextTokens));
  const layers = await attention(session, trunk, next);
  const reference = await fullRows(session, trunk, next);
  await eachFork(run, trunk, async (fork, prefillEvictionMs) => {
    const survivors = session.sequences.table(fork.id).positions.slice();
    const { rows, kvPeakBytes } = await feed(session, fork, next);
    const figures = compareRows(rows.map(logSoftmax), reference, targets);
    const errors = attentionErrors(layers, survivors);
    return { continuation: { ...figures, ...errors, kvPeakBytes, prefillEvictionMs } };
  });
  session.free(trunk);
}

/** Attention of the first of `next` over all that the trunk holds. */
async function attention(
  session: InferenceSession,
  trunk: Sequence,
  next: Uint32Array,
): Promise<LayerAttention[]> {
  const fork = await session.fork(trunk, trunk.eviction.policy);
  const layers = await captureLayers(session, fork, next.subarray(0, OBSERVED_QUERIES));
  session.free(fork);
  return layers.map(attendAll);
}

async function scores(run: StageRun): Promise<void> {
  const { session, contextTokens } = run;
  const ids = textIds(run, OBSERVED_QUERIES);
  const trunk = await readContext(run, ids.slice(0, contextTokens));
  const layers = await attention(session, trunk, ids.slice(contextTokens));
  await eachFork(run, trunk, () =>
    Promise.resolve({ scores: scoreMeaning(layers, run.stage.blockSize) }),
  );
  session.free(trunk);
}

/** Tokens of the context and at least `count` behind it. */
function textIds({ tokenizer, document, contextTokens }: StageRun, count: number): Uint32Array {
  // Words are seldom longer than 8 characters a token.
  return tokenizer.encode(document.text.slice(0, (contextTokens + count + 2) * 8));
}

/** Log-probabilities behind each of `ids` with the full cache. */
async function fullRows(
  session: InferenceSession,
  trunk: Sequence,
  ids: Uint32Array,
): Promise<Float64Array[]> {
  const fork = await session.fork(trunk, trunk.eviction.policy);
  const { rows } = await feed(session, fork, ids);
  session.free(fork);
  return rows.map(logSoftmax);
}

function compareRows(
  rows: readonly Float64Array[],
  reference: readonly Float64Array[],
  targets: Uint32Array,
): Pick<ContinuationFigures, 'losses' | 'agrees' | 'divergences'> {
  const at = (index: number): Float64Array => reference[index] ?? new Float64Array();
  return {
    losses: rows.map((row, i) => -(row[targets[i] ?? 0] ?? NaN)),
    agrees: rows.map((row, i) => (argmax(row) === argmax(at(i)) ? 1 : 0)),
    divergences: rows.map((row, i) => divergence(at(i), row)),
  };
}

function attentionErrors(
  layers: readonly LayerAttention[],
  survivors: Uint32Array,
): Pick<ContinuationFigures, 'attentionError' | 'keptMass'> {
  const errors = layers.map((layer) => survivorErrors(layer, survivors));
  const short = (values: readonly number[]): number[] => values.map((v) => Number(v.toFixed(4)));
  return {
    attentionError: errors.map(({ error }) => short(error)),
    keptMass: errors.map(({ keptMass }) => short(keptMass)),
  };
}

async function retrieval(run: StageRun): Promise<void> {
  const { session, tokenizer, document, contextTokens } = run;
  const seed = document.text.length;
  const task = buildRetrieval(document.text, tokenizer, { contextTokens, seed });
  const facts = task.questions.filter(({ kind }) => kind === 'fact');
  const firstTokens = facts.map(({ ids, answerStart }) => ids[answerStart] ?? 0);
  const trunk = await readContext(run, task.context);
  await eachFork(run, trunk, async (fork) => {
    const answers: AnswerFigures[] = [];
    for (const question of task.questions) {
      const asked = await session.fork(fork, fork.eviction.policy);
      answers.push(await answer(session, asked, question, firstTokens));
      session.free(asked);
    }
    return { answers };
  });
  session.free(trunk);
}

async function answer(
  session: InferenceSession,
  sequence: Sequence,
  question: Question,
  firstTokensOfFacts: readonly number[],
): Promise<AnswerFigures> {
  const { ids, answerStart, kind, depth } = question;
  const expected = ids.subarray(answerStart);
  const { rows } = await feed(session, sequence, ids.subarray(0, -1), {
    firstRow: answerStart - 1,
  });
  const logs = rows.map(logSoftmax);
  const logProbability = mean(logs.map((row, i) => row[expected[i] ?? 0] ?? NaN));
  const isFirst = logs.every((row, i) => argmax(row) === expected[i]);
  const [first = new Float64Array()] = logs;
  const own = first[expected[0] ?? 0] ?? NaN;
  const isPreferred = firstTokensOfFacts.every((token) => (first[token] ?? NaN) <= own);
  return { kind, depth, found: kind === 'passkey' ? isFirst : isPreferred, logProbability };
}

async function decode(run: StageRun): Promise<void> {
  const { session, contextTokens, stage } = run;
  const count = (TIMED_BLOCKS + 1) * stage.blockSize;
  const ids = textIds(run, count);
  const trunk = await readContext(run, ids.slice(0, contextTokens));
  await eachFork(run, trunk, async (fork) => {
    const next = ids.subarray(contextTokens, contextTokens + count);
    const steps = { stepTokens: 1, firstRow: 0 };
    await feed(session, fork, next.subarray(0, stage.blockSize), steps);
    const timed = next.subarray(stage.blockSize);
    const { stepMs, evictionMs, kvPeakBytes } = await feed(session, fork, timed, steps);
    const totalMs = stepMs + evictionMs;
    const tokensPerSecond = (1000 * timed.length) / totalMs;
    return { decode: { tokensPerSecond, evictionShare: evictionMs / totalMs, kvPeakBytes } };
  });
  session.free(trunk);
}

/**
 * What does a KV policy cost a decode step, and does decoding stay as fast as a text gets longer?
 * Goals: with a fixed budget at least 0.9 of the tokens/s at 8,064 positions that there are at
 * 1,024, memory never above the budget and one block; a policy that needs no attention takes at
 * most 3 % of a decode step.
 *
 * tiny-moe reads its whole text, far behind the 1,024 positions that it was trained for: its
 * speed is real, its words are not. SmolLM2 would read 8 k tokens for minutes on a software
 * driver, so there, and with `--quick`, a sequence starts at its position: under a policy the
 * budget is read at the last positions, with the full cache the slots are taken and hold zeros. A
 * decode step does the same work either way: it depends on how much is cached and not on what.
 */
import { assertInvariant, Batch, openDevice, subrange } from '@vramkit/core';
import { createGpu } from '@vramkit/adapter';
import { full, kvPolicy, type KvPolicy } from '@vramkit/eviction';
import {
  createSession,
  generate,
  loadModel,
  loadTokenizer,
  openModelFile,
  score,
  type InferenceSession,
  type Sequence,
} from '@vramkit/example-runtime';
import { resolveModel } from '@vramkit/models';
import type { BenchOptions } from './command-line.js';
import { measureInTurn, median, summarize, type Measure } from './measure.js';
import { readPlainText } from './parity-texts.js';
import { toResult, type BenchResult } from './report.js';

/** The question, for the terminal. */
export const question =
  'Decode under a KV budget at 1k and 8k positions beside the full cache, and time of decisions';

const suite = 'eviction';
const blockSize = 16;
const budgetTokens = 256;
const [near, far] = [1024, 8064];
const withoutAttention = [
  'streamingLlm',
  'pagedEviction',
  'inverseKeyNorm',
  'valueNorm',
  'keyDiff',
];
const others = ['lagKv', 'h2o', 'tova', 'snapKv', 'expectedAttention'];

interface Subject {
  readonly session: InferenceSession;
  readonly ids: Uint32Array;
  readonly driver: string;
  readonly modelName: string;
  /** Whether a sequence reads all tokens before its position. */
  readonly reads: boolean;
  /** Decode steps of one figure: whole blocks. */
  readonly steps: number;
}

/** The text over and over. */
function repeated(ids: Uint32Array, count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, i) => ids[i % ids.length] ?? 0);
}

/** A sequence under `policy` whose next token is at `position`. */
async function openAt(
  { session, ids, reads }: Subject,
  policy: KvPolicy,
  position: number,
): Promise<Sequence> {
  const sequence = session.create(policy);
  const start = Math.min(position, policy.budgetTokens);
  if (reads) {
    await session.prefill(sequence, repeated(ids, start));
    await score(session, sequence, repeated(ids, position - start + 1));
  } else if (policy.budgetTokens === Infinity) {
    session.sequences.append(sequence.id, position);
  } else {
    if (position > start) session.sequences.skip(sequence.id, position - start);
    await session.prefill(sequence, repeated(ids, start));
  }
  return sequence;
}

/** Tokens/s of greedy decoding; the sequence goes on from call to call. */
function decodeSpeed({ session, steps }: Subject, sequence: Sequence): Measure {
  const { vocabularySize } = session.model.config;
  const most = (budgetTokens / blockSize + 1) * session.cache.bytesPerBlock;
  const isBounded = sequence.eviction.policy.budgetTokens < Infinity;
  return async () => {
    sequence.lastLogits = new Float32Array(vocabularySize);
    const tokens = generate(session, sequence, { maxTokens: steps + 1, stopIds: [] });
    await tokens.next();
    const start = performance.now();
    for (let step = 0; step < steps; step++) {
      await tokens.next();
      const bytes = session.kvBytes(sequence);
      assertInvariant(!isBounded || bytes <= most, `${bytes} B of K and V, at most ${most} B`);
    }
    const seconds = (performance.now() - start) / 1000;
    await tokens.return();
    return steps / seconds;
  };
}

async function flatness(subject: Subject): Promise<BenchResult> {
  const { session, driver, modelName, reads } = subject;
  const paged = kvPolicy('pagedEviction', { budgetTokens, blockSize });
  const sides: Record<string, Measure> = {};
  const sequences: Sequence[] = [];
  for (const position of [far, near]) {
    for (const policy of [paged, full({ blockSize })]) {
      const sequence = await openAt(subject, policy, position);
      sequences.push(sequence);
      sides[`${policy.name} at ${position}`] = decodeSpeed(subject, sequence);
    }
  }
  const { [`pagedEviction at ${far}`]: ours, ...peers } = sides;
  assertInvariant(ours !== undefined, 'there is no subject');
  const measured = await measureInTurn({ ours, peers });
  for (const sequence of sequences) session.free(sequence);
  const how = reads ? 'all tokens read' : 'started at the position';
  const name = `${modelName}, pagedEviction, budget ${budgetTokens}, at ${far} positions, ${how}`;
  return toResult(
    { suite, case: name, metric: 'decode', unit: 'tokens/s', driver, better: 'higher' },
    measured,
  );
}

/** One decode step and the decision behind it; milliseconds of both, and of the decision. */
async function timedStep(
  session: InferenceSession,
  sequence: Sequence,
): Promise<readonly [totalMs: number, decisionMs: number]> {
  const { device, forward } = session;
  const start = performance.now();
  const batch = new Batch(device, 'decode');
  session.recordStep(batch, sequence, 'device');
  forward.logits(batch, 0, 1);
  forward.argmax(batch);
  batch.submit();
  await device.readback.read(subrange(forward.workspace.ids, 0, 4));
  const between = performance.now();
  await sequence.eviction.afterAppend();
  await device.settle();
  const end = performance.now();
  return [end - start, end - between];
}

/** Share of decode time in decisions, percent, over whole blocks; one figure per block. */
async function decisionShare(subject: Subject, policy: KvPolicy): Promise<BenchResult> {
  const { session, ids, driver, modelName } = subject;
  const sequence = session.create(policy);
  await session.prefill(sequence, repeated(ids, budgetTokens + blockSize));
  const shares: number[] = [];
  const stepMs: number[] = [];
  for (let block = -1; block < 5; block++) {
    let [total, decisions] = [0, 0];
    for (let step = 0; step < blockSize; step++) {
      const [totalMs, decisionMs] = await timedStep(session, sequence);
      total += totalMs;
      decisions += decisionMs;
    }
    if (block < 0) continue;
    shares.push((100 * decisions) / total);
    stepMs.push((total - decisions) / blockSize);
  }
  session.free(sequence);
  const of = `${modelName}, ${policy.name}, budget ${budgetTokens}`;
  const name = `${of}, steps of ${median(stepMs).toFixed(1)} ms`;
  return toResult(
    { suite, case: name, metric: 'time of decisions', unit: '%', driver, better: 'lower' },
    { ours: summarize(shares), peers: {}, failures: {} },
  );
}

/** Measures. */
export async function run({ quick, log }: BenchOptions): Promise<readonly BenchResult[]> {
  const { gpu, driver } = await createGpu();
  using device = await openDevice({ gpu });
  const text = await readPlainText();
  const results: BenchResult[] = [];
  for (const modelName of quick ? ['tiny-moe'] : ['tiny-moe', 'smollm2']) {
    const file = await openModelFile((await resolveModel(modelName)).path);
    const ids = (await loadTokenizer(file)).encode(text.slice(0, 4000));
    using loaded = await loadModel(device, file).finally(() => file.close());
    const isTiny = modelName === 'tiny-moe';
    const config = { ...loaded.config, contextLength: 2 * far };
    const model = isTiny ? { ...loaded, config } : loaded;
    // Both full caches, both budgets and what is decoded behind them.
    const kvTokens = far + near + 2 * budgetTokens + 2048;
    using session = createSession(device, model, { kvTokens, blockSize });
    const steps = (isTiny && !quick ? 4 : 1) * blockSize;
    const reads = isTiny && !quick;
    const subject: Subject = { session, ids, driver, modelName, reads, steps };
    log(`${modelName}: decoding at ${near} and ${far} positions`);
    results.push(await flatness(subject));
    for (const name of isTiny ? [...withoutAttention, ...others] : withoutAttention) {
      log(`${modelName}: decisions of ${name}`);
      results.push(await decisionShare(subject, kvPolicy(name, { budgetTokens, blockSize })));
    }
  }
  return results;
}

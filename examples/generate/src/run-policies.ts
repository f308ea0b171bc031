/**
 * The measurement itself: one prefill, then for each policy the perplexity of the held-out text and
 * an answer, each from a fork of the same prefilled sequence.
 */
import { countersSince } from '@vramkit/core';
import { full, kvPolicy, type KvPolicy } from '@vramkit/eviction';
import {
  expertStats,
  generate,
  score,
  type InferenceSession,
  type Sequence,
  type Tokenizer,
} from '@vramkit/example-runtime';
import type { DemoOptions } from './options.js';
import type { DemoPrompt } from './prompt.js';
import type { PolicyRun } from './report/report-data.js';

/** Where progress and tokens go, and what samples memory. */
export interface RunListener {
  phase(name: string): void;
  progress(done: number, total: number, unit: string): void;
  token(text: string): void;
  answerEnd(): void;
  sample(): void;
}

/** What {@link runPolicies} found. */
export interface PolicyResults {
  readonly runs: readonly PolicyRun[];
  readonly prefillTokensPerSecond: number;
}

/** Policies by name at a budget; unknown names and budgets below three blocks are typed errors. */
export function makePolicies(
  options: Pick<DemoOptions, 'policies' | 'blockSize'>,
  budgetTokens: number,
): KvPolicy[] {
  const { blockSize } = options;
  return options.policies.map((name) => kvPolicy(name, { budgetTokens, blockSize }));
}

/** Runs everything; see the head of this file. */
export async function runPolicies(
  session: InferenceSession,
  tokenizer: Tokenizer,
  prompt: DemoPrompt,
  policies: readonly KvPolicy[],
  options: {
    readonly maxTokens: number;
    readonly listener: RunListener;
    readonly signal: AbortSignal;
  },
): Promise<PolicyResults> {
  const { listener, signal } = options;
  const blockSize = session.sequences.pool.blockSize;
  const trunk = session.create(full({ blockSize }), policies);
  const onProgress = (done: number, total: number): void => {
    listener.progress(done, total, 'tokens');
    listener.sample();
  };
  listener.phase('prefill');
  // The last body token is scored with the held-out ones: its logits predict the first of them.
  const last = prompt.body.subarray(-1);
  const body = prompt.body.subarray(0, -1);
  let prefillMs = 0;
  const prefill = async (ids: Uint32Array): Promise<void> => {
    const start = performance.now();
    await session.prefill(trunk, ids, { signal, onProgress });
    prefillMs += performance.now() - start;
  };
  await prefill(body);
  const perplexities: number[] = [];
  for (const policy of policies) {
    listener.phase(`perplexity ${policy.name}`);
    const fork = await session.fork(trunk, policy);
    const ids = Uint32Array.of(...last, ...prompt.heldOut);
    const losses = await score(session, fork, ids, {
      signal,
      onProgress: (done) => listener.progress(done, ids.length - 1, 'tokens'),
    });
    perplexities.push(Math.exp(losses.reduce((sum, loss) => sum + loss, 0) / losses.length));
    session.free(fork);
    listener.sample();
  }
  listener.phase('prefill question');
  const rest = Uint32Array.of(...last, ...prompt.heldOut, ...prompt.question);
  await prefill(rest);
  // Both parts, as a short text is held out but for its first token.
  const prefillTokensPerSecond = ((body.length + rest.length) / prefillMs) * 1000;
  const runs: PolicyRun[] = [];
  for (const [index, policy] of policies.entries()) {
    listener.phase(`answer ${policy.name}`);
    const fork = await session.fork(trunk, policy);
    const perplexity = perplexities[index] ?? Number.NaN;
    runs.push({ ...(await answer(session, tokenizer, fork, options)), perplexity });
    session.free(fork);
  }
  session.free(trunk);
  return { runs, prefillTokensPerSecond };
}

async function answer(
  session: InferenceSession,
  tokenizer: Tokenizer,
  sequence: Sequence,
  options: {
    readonly maxTokens: number;
    readonly listener: RunListener;
    readonly signal: AbortSignal;
  },
): Promise<Omit<PolicyRun, 'perplexity'>> {
  const { listener, maxTokens, signal } = options;
  const table = session.sequences.table(sequence.id);
  const decoder = tokenizer.createDecoder();
  // Warm-up ends once a block has filled: then every kind of step has happened.
  const warmUp = table.blockSize + 2;
  const kvBytesByStep = [session.kvBytes(sequence)];
  let answerText = '';
  let given = 0;
  let start = 0;
  let peakBlocks = table.blockCount;
  let before = { ...session.device.counters };
  const expertsBefore = expertStats(session.model);
  const emit = (text: string): void => {
    answerText += text;
    listener.token(text);
  };
  for await (const id of generate(session, sequence, { maxTokens, signal })) {
    given += 1;
    if (given === 1) start = performance.now();
    if (given <= warmUp) before = { ...session.device.counters };
    peakBlocks = Math.max(peakBlocks, table.blockCount);
    kvBytesByStep.push(session.kvBytes(sequence));
    emit(decoder.push(id));
    listener.sample();
  }
  const seconds = (performance.now() - start) / 1000;
  emit(decoder.end());
  listener.answerEnd();
  const created = countersSince(before, session.device.counters);
  return {
    policy: sequence.eviction.policy.name,
    answer: answerText.trim(),
    kvPeakBytes: peakBlocks * session.cache.bytesPerBlock,
    peakBlocks,
    decodeTokensPerSecond: given > 1 ? (given - 1) / seconds : 0,
    buffersCreated: created.buffersCreated,
    bindGroupsCreated: created.bindGroupsCreated,
    pipelinesCreated: created.pipelinesCreated,
    kvBytesByStep,
    survivors: Array.from(table.positions),
    tokenCount: table.tokenCount,
    expertHitRate: hitRate(expertsBefore, expertStats(session.model)),
  };
}

type ExpertCounts = ReturnType<typeof expertStats>;

/** Hits over requests between two counts. */
function hitRate(before: ExpertCounts, after: ExpertCounts): number | undefined {
  if (before === undefined || after === undefined) return undefined;
  const hits = after.hits - before.hits;
  const requests = hits + after.misses - before.misses;
  return requests === 0 ? undefined : hits / requests;
}

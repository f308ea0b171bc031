/** Chooses and loads the model, sizes the session, runs the policies and gathers the report. */
import { fail, type VramDevice } from '@vramkit/core';
import type { KvPolicy } from '@vramkit/eviction';
import {
  expertStats,
  loadTokenizer,
  openModelFile,
  openSession,
  type LanguageModel,
  type OpenedSession,
  type Tokenizer,
} from '@vramkit/example-runtime';
import { resolveModel } from '@vramkit/models';
import { explainChoice, measureAdapter, predictSeconds, type DemoWork } from './choose-model.js';
import type { DemoOptions } from './options.js';
import { buildPrompt, HELD_OUT_TOKENS, type DemoPrompt } from './prompt.js';
import type { ExpertReport, GenerationReport, MemorySample } from './report/report-data.js';
import { expertSummary, formatBytes } from './report/table.js';
import { makePolicies, runPolicies } from './run-policies.js';
import { Terminal } from './terminal.js';

/** Roughly what the default text asks of the model; the exact count needs its tokenizer. */
const EXPECTED_PROMPT_TOKENS = 1300;
const ANSWER_TOKENS = { instruct: 48, bytes: 96 };

async function chooseModel(
  device: VramDevice,
  options: DemoOptions,
): Promise<{ readonly name: string; readonly why: string }> {
  if (options.model !== undefined) return { name: options.model, why: 'as asked' };
  const work: DemoWork = {
    prefillTokens: EXPECTED_PROMPT_TOKENS,
    decodeTokens: options.policies.length * (options.maxTokens ?? ANSWER_TOKENS.instruct),
    scoredTokens: options.policies.length * HELD_OUT_TOKENS,
  };
  const speed = await measureAdapter(device);
  const { model: name, why } = explainChoice(speed, predictSeconds(speed, work));
  return { name, why };
}

/** The model's file; tiny-moe where SmolLM2 was only our own choice and cannot be fetched. */
async function findModel(
  choice: { readonly name: string; readonly why: string },
  options: DemoOptions,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<{ readonly path: string; readonly name: string; readonly why: string }> {
  const onProgress = (done: number, total: number): void =>
    terminal.progress(Math.round(done / 1e6), Math.round(total / 1e6), 'MB');
  terminal.phase(`fetch ${choice.name}`);
  try {
    return { ...choice, path: (await resolveModel(choice.name, { onProgress, signal })).path };
  } catch (error) {
    if (options.model !== undefined || signal.aborted) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    const why = `${choice.name} cannot be fetched (${reason}); --model PATH takes a file of yours`;
    return { name: 'tiny-moe', why, path: (await resolveModel('tiny-moe')).path };
  }
}

/** What {@link makePlan} takes of the command line. */
export type PlanOptions = Pick<
  DemoOptions,
  'promptFile' | 'question' | 'policies' | 'blockSize' | 'kvBudgetTokens' | 'maxTokens'
>;

/** What a run needs to know before the weights are loaded. */
interface Plan {
  readonly prompt: DemoPrompt;
  readonly promptTokens: number;
  readonly kvBudgetTokens: number;
  readonly policies: readonly KvPolicy[];
  readonly maxTokens: number;
  /** Tokens that the pool has to hold at once. */
  readonly kvTokens: number;
}

/**
 * Sizes the run; finds unknown policies, budgets that are too small and answers that are too long
 * before anything is loaded.
 * @throws VramError `context-exceeded`; what {@link buildPrompt} and {@link makePolicies} throw.
 */
export async function makePlan(
  tokenizer: Tokenizer,
  options: PlanOptions,
  contextLength: number,
): Promise<Plan> {
  const prompt = await buildPrompt(options, tokenizer);
  const { blockSize } = options;
  const promptTokens = prompt.body.length + prompt.heldOut.length + prompt.question.length;
  const quarter = Math.max(3, Math.floor(promptTokens / 4 / blockSize)) * blockSize;
  const kvBudgetTokens = options.kvBudgetTokens ?? quarter;
  const policies = makePolicies(options, kvBudgetTokens);
  const answerTokens = tokenizer.hasChatTemplate ? ANSWER_TOKENS.instruct : ANSWER_TOKENS.bytes;
  const maxTokens = options.maxTokens ?? answerTokens;
  const room = contextLength - promptTokens;
  if (room < maxTokens) {
    const most = room < 1 ? 'shorten the prompt' : `--max-tokens at most ${room} fits`;
    fail(
      'context-exceeded',
      `a prompt of ${promptTokens} tokens and an answer of ${maxTokens} exceed the model's ` +
        `context of ${contextLength}; ${most}`,
      { promptTokens, maxTokens, contextLength },
    );
  }
  // The trunk holds the prompt; one fork at a time holds its budget or its answer beside it.
  const largestFork = Math.max(
    ...policies.map((policy) => (policy.budgetTokens < promptTokens ? policy.budgetTokens : 0)),
  );
  const kvTokens = promptTokens + largestFork + maxTokens + HELD_OUT_TOKENS + 4 * blockSize;
  return { prompt, promptTokens, kvBudgetTokens, policies, maxTokens, kvTokens };
}

function sayPlacement({ units, streaming }: OpenedSession['placement'], terminal: Terminal): void {
  const { device: resident, host: streamed } = units.weights;
  if (streamed === 0) return;
  terminal.line(
    `Layers: ${resident} on the device, ${streamed} streamed from the host ` +
      `(${streaming}), because of --gpu-budget`,
  );
}

function expertReport(
  model: LanguageModel,
  { experts, expertPolicy: policy }: DemoOptions,
  terminal: Terminal,
): ExpertReport | undefined {
  const stats = expertStats(model);
  if (stats === undefined || experts === undefined) return undefined;
  const { budgetBytes, prefetch = false } = experts;
  const report = { budgetBytes, policy, prefetch, ...stats };
  terminal.line(`Experts: ${expertSummary(report)}`);
  return report;
}

/** Runs the demo; throws typed errors only. */
export async function demo(
  device: VramDevice,
  adapter: string,
  options: DemoOptions,
  signal: AbortSignal,
): Promise<GenerationReport> {
  const start = performance.now();
  const memory: MemorySample[] = [];
  const sample = (): void => {
    const { liveBytesByKind: byKind } = device.memory.stats();
    memory.push({ timeMs: performance.now() - start, byKind });
  };
  const terminal = new Terminal(sample);
  terminal.line(`Adapter: ${adapter}`);
  const choice = await chooseModel(device, options);
  const { name, why, path } = await findModel(choice, options, terminal, signal);
  terminal.line(`Model: ${name} (${why})`);
  const file = await openModelFile(path);
  try {
    const tokenizer = await loadTokenizer(file);
    const plan = await makePlan(tokenizer, options, file.config.contextLength);
    const { prompt, promptTokens, kvBudgetTokens, kvTokens } = plan;
    const { blockSize, kvDtype } = options;
    terminal.phase('load weights');
    using opened = await openSession(device, file, {
      kvTokens,
      blockSize,
      kvDtype,
      signal,
      ...(options.experts === undefined ? {} : { experts: options.experts }),
      onProgress: (done, total) => {
        terminal.progress(Math.round(done / 1e6), Math.round(total / 1e6), 'MB');
        sample();
      },
    });
    const { session, placement } = opened;
    sayPlacement(placement, terminal);
    terminal.line(
      `Prompt: ${promptTokens} tokens; budget ${kvBudgetTokens}; ` +
        `device memory ${formatBytes(device.memory.stats().liveBytes)}`,
    );
    const results = await runPolicies(session, tokenizer, prompt, plan.policies, {
      maxTokens: plan.maxTokens,
      listener: terminal,
      signal,
    });
    const experts = expertReport(opened.model, options, terminal);
    return {
      model: name,
      whyThisModel: why,
      adapter,
      textSource: prompt.textSource,
      question: prompt.questionText,
      promptTokens,
      blockSize,
      kvBudgetTokens,
      gpuBudgetBytes: options.gpuBudgetBytes,
      experts,
      totalSeconds: (performance.now() - start) / 1000,
      ...results,
      memory,
    };
  } finally {
    await file.close();
  }
}

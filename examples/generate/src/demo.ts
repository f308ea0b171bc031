/** Chooses and loads the model, sizes the session, runs the policies and gathers the report. */
import { MEMORY_KINDS, type VramDevice } from '@vramkit/core';
import { createSession, loadModel, loadTokenizer, openModelFile } from '@vramkit/example-runtime';
import { resolveModel } from '@vramkit/models';
import { explainChoice, measureAdapter, predictSeconds, type DemoWork } from './choose-model.js';
import type { DemoOptions } from './options.js';
import { buildPrompt } from './prompt.js';
import type { GenerationReport, MemorySample, Phase } from './report/report-data.js';
import { formatBytes } from './report/table.js';
import { makePolicies, runPolicies } from './run-policies.js';
import { Terminal } from './terminal.js';

/** Roughly what the default text asks of the model; the exact count needs its tokenizer. */
const EXPECTED_PROMPT_TOKENS = 1300;
const HELD_OUT_TOKENS = 64;
const ANSWER_TOKENS = { instruct: 48, bytes: 160 };

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

/** Runs the demo; throws typed errors only. */
export async function demo(
  device: VramDevice,
  adapter: string,
  options: DemoOptions,
  signal: AbortSignal,
): Promise<GenerationReport> {
  const start = performance.now();
  const memory: MemorySample[] = [];
  const phases: Phase[] = [];
  const sample = (): void => {
    const byKind = device.memory.stats().liveBytesByKind;
    memory.push({ timeMs: performance.now() - start, byKind: { ...byKind } });
  };
  const terminal = new Terminal({
    sample,
    onPhase: (name) => {
      const now = performance.now() - start;
      const previous = phases.pop();
      if (previous !== undefined) phases.push({ ...previous, endMs: now });
      phases.push({ name, startMs: now, endMs: now });
    },
  });
  terminal.line(`Adapter: ${adapter}`);
  const choice = await chooseModel(device, options);
  const { name, why, path } = await findModel(choice, options, terminal, signal);
  terminal.line(`Model: ${name} (${why})`);
  const file = await openModelFile(path);
  try {
    const tokenizer = await loadTokenizer(file);
    const prompt = await buildPrompt(options, tokenizer);
    const promptTokens = prompt.body.length + prompt.heldOut.length + prompt.question.length;
    const { blockSize, kvDtype } = options;
    const quarter = Math.max(3, Math.floor(promptTokens / 4 / blockSize)) * blockSize;
    const kvBudgetTokens = options.kvBudgetTokens ?? quarter;
    const policies = makePolicies(options, kvBudgetTokens);
    const isInstruct = tokenizer.hasChatTemplate;
    const maxTokens =
      options.maxTokens ?? (isInstruct ? ANSWER_TOKENS.instruct : ANSWER_TOKENS.bytes);
    terminal.phase('load weights');
    using model = await loadModel(device, file, {
      signal,
      onProgress: (done, total) => {
        terminal.progress(Math.round(done / 1e6), Math.round(total / 1e6), 'MB');
        sample();
      },
    });
    // The trunk holds the prompt; one fork at a time holds its budget or its answer beside it.
    const largestFork = Math.max(...policies.map((p) => Math.min(p.budgetTokens, promptTokens)));
    const kvTokens = promptTokens + largestFork + maxTokens + HELD_OUT_TOKENS + 4 * blockSize;
    using session = createSession(device, model, { kvTokens, blockSize, kvDtype });
    terminal.line(
      `Prompt: ${promptTokens} tokens; budget ${kvBudgetTokens}; ` +
        `device memory ${formatBytes(device.memory.stats().liveBytes)}`,
    );
    const run = { maxTokens, listener: terminal, signal };
    const results = await runPolicies(session, tokenizer, prompt, policies, run);
    terminal.phase('done');
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
      totalSeconds: (performance.now() - start) / 1000,
      ...results,
      memory: memory.filter((each) => MEMORY_KINDS.some((kind) => each.byKind[kind] > 0)),
      phases,
    };
  } finally {
    await file.close();
  }
}

/**
 * llama.cpp behind one JSON line per request: the process that benchmarks and parity checks compare
 * with. Run `node --import tsx tools/peers/src/llama.ts` and write lines as `protocol.ts` says.
 *
 * Exactness of `likelihood`: the whole text is evaluated in one sequence of one context, so every
 * token sees all tokens before it; there is no sliding window, and no BOS token but what the
 * caller passes. node-llama-cpp hands out the raw f32 logits of the whole vocabulary, and the
 * normalizer is summed here in f64: llama.cpp's own probabilities are sums in f32, which lose up
 * to 2e-4 nats.
 *
 * The binaries are the prebuilt ones that npm installs; nothing is compiled and nothing downloaded.
 * llama.cpp's CPU kernels round activations to 8 bits before they multiply 4-bit weights, so its
 * logits differ from those of f32 activations by a few hundredths.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';
import type { LlamaContextSequence, LlamaModel, Token } from 'node-llama-cpp';
import type {
  LlamaCalls,
  LlamaLikelihood,
  LlamaOpen,
  LlamaOpened,
  LlamaReply,
  LlamaRequest,
  LlamaStep,
} from './protocol.js';

/** Tokens scored by one call: each holds a map of the whole vocabulary until it is reduced. */
const scoredAtOnce = 64;
/** Tokens that llama.cpp evaluates in one graph; its own default. */
const batchTokens = 512;

interface Opened {
  readonly model: LlamaModel;
  readonly sequence: LlamaContextSequence;
}

type Logits = ReadonlyMap<Token, number>;

/** node-llama-cpp brands token ids; ours come from the same vocabulary. */
function asTokens(ids: readonly number[]): Token[] {
  return ids as Token[];
}

function versionText(): string {
  const entry = createRequire(import.meta.url).resolve('node-llama-cpp');
  const folder = dirname(dirname(entry));
  // Both files belong to the package, which fixes their shape.
  const own = JSON.parse(readFileSync(`${folder}/package.json`, 'utf8')) as { version: string };
  const build = JSON.parse(readFileSync(`${folder}/llama/binariesGithubRelease.json`, 'utf8')) as {
    release: string;
  };
  return `node-llama-cpp ${own.version}, llama.cpp ${build.release}`;
}

async function open(request: LlamaOpen): Promise<{ opened: Opened; answer: LlamaOpened }> {
  const llama = await getLlama({
    gpu: request.backend === 'vulkan' ? 'vulkan' : false,
    build: 'never',
    skipDownload: true,
    progressLogs: false,
    // No ceiling of its own, so that `threads` below is the number that runs.
    maxThreads: 0,
    logLevel: LlamaLogLevel.error,
    logger: (level, message) => process.stderr.write(`llama.cpp ${level}: ${message}\n`),
  });
  const model = await llama.loadModel({
    modelPath: request.model,
    gpuLayers: request.backend === 'vulkan' ? 'max' : 0,
  });
  const kvType = request.attention === 'exact' ? 'F32' : 'F16';
  const context = await model.createContext({
    contextSize: request.contextTokens,
    batchSize: Math.min(batchTokens, request.contextTokens),
    threads: request.threads,
    sequences: 1,
    flashAttention: request.attention === 'exact' ? false : 'auto',
    experimentalKvCacheKeyType: kvType,
    experimentalKvCacheValueType: kvType,
  });
  const answer: LlamaOpened = {
    version: versionText(),
    devices: request.backend === 'vulkan' ? await llama.getGpuDeviceNames() : [],
    system: llama.systemInfo,
    contextTokens: context.contextSize,
    vocabularySize: model.fileInfo.metadata.tokenizer?.ggml?.tokens?.length ?? 0,
  };
  return { opened: { model, sequence: context.getSequence() }, answer };
}

/** Evaluates tokens behind those in the sequence; gives the logits after the last `scored`. */
async function evaluate(
  { sequence }: Opened,
  tokens: readonly Token[],
  scored: number,
): Promise<{ logits: Logits; weight: number }[]> {
  const first = tokens.length - scored;
  const generateNext = { logits: true, totalLogitWeight: true };
  const outputs = await sequence.controlledEvaluate(
    tokens.map((token, index) => (index < first ? token : [token, { generateNext }])),
  );
  return outputs.slice(first).map((output) => {
    const { logits, totalLogitWeight } = output?.next ?? {};
    if (logits === undefined || totalLogitWeight === undefined) throw new Error('no logits came');
    return { logits, weight: totalLogitWeight };
  });
}

/** The largest logit and the f64 sum of `exp(logit - largest)` over the whole vocabulary. */
function normalizer(logits: Logits): { largest: number; sum: number } {
  let largest = -Infinity;
  for (const logit of logits.values()) largest = Math.max(largest, logit);
  let sum = 0;
  for (const logit of logits.values()) sum += Math.exp(logit - largest);
  return { largest, sum };
}

async function likelihood(opened: Opened, tokens: readonly Token[]): Promise<LlamaLikelihood> {
  await opened.sequence.clearHistory();
  const logProbs: number[] = [];
  let largestSumGap = 0;
  const scored = tokens.length - 1;
  for (let start = 0; start < scored; start += scoredAtOnce) {
    const chunk = tokens.slice(start, Math.min(start + scoredAtOnce, scored));
    const results = await evaluate(opened, chunk, chunk.length);
    for (const [index, { logits, weight }] of results.entries()) {
      const next = tokens[start + index + 1];
      const logit = next === undefined ? undefined : logits.get(next);
      if (logit === undefined) throw new Error(`token ${next} is not in the vocabulary`);
      const { largest, sum } = normalizer(logits);
      logProbs.push(logit - largest - Math.log(sum));
      largestSumGap = Math.max(largestSumGap, Math.abs(Math.log(weight / sum)));
    }
  }
  const mean = logProbs.reduce((total, each) => total + each, 0) / logProbs.length;
  return { logProbs, perplexity: Math.exp(-mean), largestSumGap };
}

function topTwo(logits: Logits): LlamaStep {
  const { largest, sum } = normalizer(logits);
  // The map comes sorted, the largest logit first.
  const [best, second] = [...logits].slice(0, 2);
  if (best === undefined || second === undefined) throw new Error('a vocabulary of one token');
  const candidate = ([token, logit]: [Token, number]): LlamaStep[0] => ({
    token,
    probability: Math.exp(logit - largest) / sum,
  });
  return [candidate(best), candidate(second)];
}

async function continueGreedily(
  opened: Opened,
  prompt: readonly Token[],
  count: number,
): Promise<LlamaCalls['continue']['answer']> {
  await opened.sequence.clearHistory();
  const tokens: number[] = [];
  const steps: LlamaStep[] = [];
  let input = prompt;
  while (tokens.length < count) {
    const [last] = await evaluate(opened, input, 1);
    if (last === undefined) throw new Error('the prompt is empty');
    const step = topTwo(last.logits);
    tokens.push(step[0].token);
    steps.push(step);
    input = asTokens([step[0].token]);
    if (input.some((token) => opened.model.isEogToken(token))) break;
  }
  return { tokens, steps };
}

async function timePrefill({ sequence }: Opened, tokens: readonly Token[]): Promise<number> {
  await sequence.clearHistory();
  const last = tokens.length - 1;
  const input = tokens.map((token, index) =>
    // The next token is chosen too: without it a GPU backend may still be computing on return.
    index === last ? ([token, { generateNext: { token: true } }] satisfies [Token, object]) : token,
  );
  const start = performance.now();
  await sequence.controlledEvaluate(input);
  return (performance.now() - start) / 1000;
}

async function timeDecode(
  { sequence }: Opened,
  prompt: readonly Token[],
  count: number,
): Promise<number> {
  await sequence.clearHistory();
  const tokens = sequence.evaluate([...prompt], { temperature: 0, yieldEogToken: true });
  await tokens.next();
  const start = performance.now();
  for (let step = 0; step < count; step += 1) await tokens.next();
  const seconds = (performance.now() - start) / 1000;
  await tokens.return();
  return seconds;
}

async function answer(opened: Opened, line: LlamaRequest): Promise<unknown> {
  switch (line.call) {
    case 'open':
      throw new Error('open comes once');
    case 'tokenize':
      return { tokens: opened.model.tokenize(line.request.text, line.request.special) };
    case 'likelihood':
      return likelihood(opened, asTokens(line.request.tokens));
    case 'continue':
      return continueGreedily(opened, asTokens(line.request.prompt), line.request.count);
    case 'prefill':
      return { seconds: await timePrefill(opened, asTokens(line.request.tokens)) };
    case 'decode': {
      const { prompt, count } = line.request;
      return { seconds: await timeDecode(opened, asTokens(prompt), count) };
    }
  }
}

let opened: Opened | undefined;
for await (const text of createInterface({ input: process.stdin })) {
  let reply: LlamaReply;
  try {
    // Only this workspace writes these lines, by the types of protocol.ts.
    const line = JSON.parse(text) as LlamaRequest;
    if (opened !== undefined) reply = { answer: await answer(opened, line) };
    else if (line.call === 'open') {
      const result = await open(line.request);
      opened = result.opened;
      reply = { answer: result.answer };
    } else throw new Error(`${line.call} came before open`);
  } catch (error) {
    reply = { error: error instanceof Error ? error.message : String(error) };
  }
  process.stdout.write(`${JSON.stringify(reply)}\n`);
}
// llama.cpp's own threads would keep the process alive.
process.exit(0);

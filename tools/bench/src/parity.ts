/**
 * Parity with llama.cpp on the same SmolLM2 file: `npm run parity [-- --model PATH]`.
 *
 * Prints both sides and ends with code 1 outside the bands of `parity-compare.ts`. Both sides get
 * the same token ids, which llama.cpp's tokenizer makes; that ours makes the same ones is checked
 * too. llama.cpp runs first and alone, in one thread (its threads spin, and two processes on two
 * cores would wait for each other), with keys and values in f32 and flash attention off.
 */
import { programOptions } from '@vramkit/adapter';
import { resolveModel } from '@vramkit/models';
import { openLlama } from './llama-peer.js';
import type { LlamaPeer } from './llama-peer.js';
import { openOurModel } from './our-model.js';
import type { OurModel } from './our-model.js';
import {
  commonTokens,
  compareContinuations,
  continuationsAgree,
  perplexitiesAgree,
  perplexityBand,
  relativeDifference,
  topTwo,
} from './parity-compare.js';
import type { Candidate, ContinuationComparison } from './parity-compare.js';
import { parityPrompts, readPlainText, scoredTokens } from './parity-texts.js';
import { installPeers } from './peers.js';

const continuedTokens = 32;
const contextTokens = 2304;

/** What llama.cpp says about one prompt. */
interface Continued {
  readonly name: string;
  readonly text: string;
  readonly prompt: readonly number[];
  readonly tokens: readonly number[];
  readonly steps: readonly (readonly [Candidate, Candidate])[];
}

/** Everything that llama.cpp says. */
interface Reference {
  readonly plainText: string;
  readonly plain: readonly number[];
  readonly perplexity: number;
  readonly continued: readonly Continued[];
}

async function askLlama(llama: LlamaPeer): Promise<Reference> {
  const plainText = await readPlainText();
  const { tokens: plain } = await llama.ask('tokenize', { text: plainText, special: false });
  console.log(`llama.cpp: scoring ${scoredTokens} tokens`);
  const read = plain.slice(0, scoredTokens + 1);
  const { perplexity } = await llama.ask('likelihood', { tokens: read });
  const continued: Continued[] = [];
  for (const { name, text } of await parityPrompts()) {
    const { tokens: prompt } = await llama.ask('tokenize', { text, special: true });
    const count = continuedTokens;
    continued.push({ name, text, prompt, ...(await llama.ask('continue', { prompt, count })) });
  }
  return { plainText, plain, perplexity, continued };
}

/** Prints the tokenizers' verdicts; true where they agree. */
function checkTokens(ours: OurModel, reference: Reference): boolean {
  const texts = [
    { name: 'plain text', text: reference.plainText, prompt: reference.plain },
    ...reference.continued,
  ];
  const wrong = texts.filter(({ text, prompt }) => {
    const ids = ours.tokenizer.encode(text, { addSpecial: false });
    return ids.length !== prompt.length || ids.some((id, index) => id !== prompt[index]);
  });
  const names = wrong.map(({ name }) => name).join(', ');
  console.log(
    `\ntoken ids of ${texts.length} texts: ${names === '' ? 'the same' : `not in ${names}`}`,
  );
  return wrong.length === 0;
}

async function checkPerplexity(ours: OurModel, reference: Reference): Promise<boolean> {
  const tokens = reference.plain.slice(0, scoredTokens + 1);
  const start = performance.now();
  let told = 0;
  const perplexity = await ours.perplexity(tokens, (done) => {
    if (done - told < scoredTokens / 10) return;
    told = done;
    console.log(`ours: scored ${done} of ${scoredTokens} tokens`);
  });
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  const agrees = perplexitiesAgree(perplexity, reference.perplexity);
  const percent = (relativeDifference(perplexity, reference.perplexity) * 100).toFixed(3);
  console.log(
    `perplexity over ${scoredTokens} tokens: ours ${perplexity.toFixed(4)} (${seconds} s),` +
      ` llama.cpp ${reference.perplexity.toFixed(4)}: ${percent} % apart,` +
      ` ${agrees ? 'within' : 'OUTSIDE'} ${perplexityBand * 100} %`,
  );
  return agrees;
}

function formatTwo(candidates: readonly Candidate[] | undefined): string {
  if (candidates === undefined) return 'nothing more';
  return candidates
    .map(({ token, probability }) => `${token} (${probability.toFixed(4)})`)
    .join(', ');
}

async function compareOne(ours: OurModel, theirs: Continued): Promise<ContinuationComparison> {
  const tokens = await ours.continueGreedily(theirs.prompt, continuedTokens);
  // llama.cpp's continuation holds the token that ends the text, ours does not.
  const expected = theirs.tokens.filter((token) => !ours.isStop(token));
  const comparison = compareContinuations(tokens, expected);
  const { common, partsAt, agrees } = comparison;
  console.log(
    `greedy '${theirs.name}': ${common} of ${expected.length} tokens in common,` +
      ` ${agrees ? 'agrees' : `PARTS before ${commonTokens}`}`,
  );
  if (partsAt === undefined) return comparison;
  const soFar = [...theirs.prompt, ...expected.slice(0, partsAt)];
  console.log(`  first divergence at token ${partsAt}; the two best of each side:`);
  console.log(`    ours      ${formatTwo(topTwo(await ours.logitsAfter(soFar)))}`);
  console.log(`    llama.cpp ${formatTwo(theirs.steps[partsAt])}`);
  return comparison;
}

async function runParity(modelName: string): Promise<boolean> {
  await installPeers((line) => console.log(line));
  const { path } = await resolveModel(modelName);
  let reference: Reference;
  {
    const options = { model: path, backend: 'cpu', threads: 1, contextTokens } as const;
    await using llama = await openLlama({ ...options, attention: 'exact' });
    console.log(`llama.cpp: ${llama.opened.version}, CPU, one thread`);
    reference = await askLlama(llama);
  }
  using ours = await openOurModel(path, contextTokens);
  console.log(`ours: ${ours.adapter} (${ours.driver})`);
  const verdicts = [checkTokens(ours, reference), await checkPerplexity(ours, reference)];
  const comparisons: ContinuationComparison[] = [];
  for (const each of reference.continued) comparisons.push(await compareOne(ours, each));
  verdicts.push(continuationsAgree(comparisons));
  return verdicts.every((verdict) => verdict);
}

const usage =
  'usage: npm run parity -- [--model NAME]   smollm2, tiny-moe or a path (default: smollm2)';
const passed = await runParity(programOptions(usage, { model: 'smollm2' }).model);
console.log(passed ? '\nparity holds' : '\nparity does NOT hold');
// Dawn keeps the process alive for as long as its entry point is reachable.
process.exit(passed ? 0 : 1);

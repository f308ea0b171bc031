/**
 * How fast do we read and write text with SmolLM2, beside llama.cpp, and how far are our kernels
 * from what the driver gives? Goal: on the same driver at least llama.cpp's Vulkan speed, and
 * each kernel at least as fast as a plain copy or a plain product.
 *
 * llama.cpp runs as it comes (f16 cache, flash attention) on the same file, in processes of its
 * own, in turn with ours. On the CPU it gets one thread and, as a second rival, all of them: its
 * threads spin at barriers, so on a machine whose cores are shared all threads can be slower than
 * one. A software Vulkan driver is a CPU doing a GPU's work; a ratio to the CPU rivals there says
 * what such a driver costs, not what a GPU gains.
 */
import { availableParallelism } from 'node:os';
import { resolveModel } from '@vramkit/models';
import type { BenchOptions } from './command-line.js';
import { attentionCases, CaseResources, plainCopies, productCases } from './kernel-cases.js';
import { openLlama } from './llama-peer.js';
import type { LlamaPeer } from './llama-peer.js';
import { measureInTurn } from './measure.js';
import type { Measure } from './measure.js';
import { openOurModel } from './our-model.js';
import type { OurModel } from './our-model.js';
import { readPlainText } from './parity-texts.js';
import { installPeers } from './peers.js';
import { toResult } from './report.js';
import type { BenchResult } from './report.js';

/** The question, for the terminal. */
export const question =
  'Decode and prefill of SmolLM2 beside llama.cpp, and each kernel beside a plain copy or product';

const suite = 'decode';
const contextTokens = 1024;
/** A prefill whose warm-up takes longer than this is not measured at a larger size. */
const patienceSeconds = 30;
/** The first run on a driver compiles its shaders, which takes llama.cpp minutes on lavapipe. */
const vulkanLimitSeconds = 600;

interface Rival {
  readonly name: string;
  readonly llama: LlamaPeer;
}

/** Starts every llama.cpp that runs here; says which do not, and why. */
async function openRivals(path: string, ours: OurModel, options: BenchOptions): Promise<Rival[]> {
  const rivals: Rival[] = [];
  const start = async (name: string, backend: 'cpu' | 'vulkan', threads: number): Promise<void> => {
    const open = { model: path, backend, threads, contextTokens, attention: 'fast' } as const;
    try {
      const softwareDriver = ours.adapter !== 'gpu';
      rivals.push({ name, llama: await openLlama(open, { softwareDriver }) });
    } catch (error) {
      options.log(
        `${name} does not run: ${error instanceof Error ? error.message : String(error)}`,
      );
    }
  };
  await start('llama.cpp CPU x1', 'cpu', 1);
  const threads = availableParallelism();
  if (threads > 1) await start(`llama.cpp CPU x${threads}`, 'cpu', threads);
  if (options.quick && ours.adapter !== 'gpu') {
    options.log('llama.cpp Vulkan is left out: it takes minutes to compile on a software driver');
  } else await start('llama.cpp Vulkan', 'vulkan', 1);
  return rivals;
}

/** Measures one figure of the model on all sides, in turn. */
async function modelFigure(
  name: { readonly case: string; readonly metric: string; readonly driver: string },
  tokens: number,
  sides: { ours: () => Promise<number>; rivals: readonly Rival[] },
  ask: (llama: LlamaPeer) => Promise<{ readonly seconds: number }>,
  log: (line: string) => void,
): Promise<BenchResult> {
  const peers = sides.rivals.map(({ name: peer, llama }): [string, Measure] => [
    peer,
    async () => tokens / (await ask(llama)).seconds,
  ]);
  const ours: Measure = async () => tokens / (await sides.ours());
  log(`measuring ${name.case}`);
  const measured = await measureInTurn({ ours, peers: Object.fromEntries(peers) });
  for (const [peer, reason] of Object.entries(measured.failures)) {
    log(`${peer} is left out of ${name.case}: ${reason}`);
  }
  return toResult({ suite, unit: 'tokens/s', better: 'higher', ...name }, measured);
}

async function modelFigures(
  ours: OurModel,
  rivals: readonly Rival[],
  { quick, log }: BenchOptions,
): Promise<BenchResult[]> {
  const { driver } = ours;
  const text = ours.tokenizer.encode(await readPlainText(), { addSpecial: false });
  const plain = [...text];
  const results: BenchResult[] = [];
  const onSoftware = ours.adapter !== 'gpu';
  for (const count of quick ? [16] : [128, 512]) {
    const tokens = plain.slice(0, count);
    const seconds = await ours.timePrefill(tokens);
    if (seconds > patienceSeconds) {
      log(`prefill of ${count} tokens takes us ${seconds.toFixed(0)} s a run: not measured`);
      break;
    }
    // On a software driver one prefill of 512 takes llama.cpp's Vulkan most of a minute.
    const here = rivals.filter(({ name }) => !(onSoftware && count > 128 && /Vulkan/.test(name)));
    const name = { case: `smollm2 prefill of ${count} tokens`, metric: 'prefill', driver };
    const side = { ours: () => ours.timePrefill(tokens), rivals: here };
    const ask = (llama: LlamaPeer) => llama.ask('prefill', { tokens }, vulkanLimitSeconds);
    results.push(await modelFigure(name, count, side, ask, log));
  }
  const prompt = plain.slice(0, quick ? 8 : 128);
  const count = quick ? 4 : 32;
  const name = {
    case: `smollm2 decode of ${count} tokens after ${prompt.length}`,
    metric: 'decode',
    driver,
  };
  const side = { ours: () => ours.timeDecode(prompt, count), rivals };
  const ask = (llama: LlamaPeer) => llama.ask('decode', { prompt, count }, vulkanLimitSeconds);
  results.push(await modelFigure(name, count, side, ask, log));
  return results;
}

async function kernelFigures(ours: OurModel, { quick, log }: BenchOptions): Promise<BenchResult[]> {
  const { device, driver } = ours;
  using resources = new CaseResources();
  const copies = await plainCopies(device, resources);
  const wide = { rows: 1, depth: 576, outputs: quick ? 6144 : 24_576 };
  const tall = { rows: quick ? 32 : 128, depth: 576, outputs: 3072 };
  const sizes = quick ? { tokens: 512, chunk: 32 } : { tokens: 2048, chunk: 128 };
  const cases = [
    ...(await productCases(device, resources, copies, wide)),
    ...(await productCases(device, resources, copies, tall)),
    ...(await attentionCases(device, resources, copies, sizes)),
  ];
  const results: BenchResult[] = [];
  for (const { name, unit, ours: kernel, peers } of cases) {
    log(`measuring ${name}, ${unit}`);
    const measured = await measureInTurn({ ours: kernel, peers });
    const figure = { suite, case: name, metric: 'kernel', unit, driver, better: 'higher' } as const;
    results.push(toResult(figure, measured));
  }
  return results;
}

/** Measures everything, kernels first: a rival's threads are not even started then. */
export async function run(options: BenchOptions): Promise<readonly BenchResult[]> {
  await installPeers(options.log);
  const { path } = await resolveModel('smollm2');
  using ours = await openOurModel(path, contextTokens);
  options.log(`ours: ${ours.adapter} (${ours.driver})`);
  const kernels = await kernelFigures(ours, options);
  const rivals = await openRivals(path, ours, options);
  try {
    return [...(await modelFigures(ours, rivals, options)), ...kernels];
  } finally {
    for (const { llama } of rivals) await llama.dispose();
  }
}

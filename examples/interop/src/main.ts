/**
 * Decodes with ONNX Runtime Web as its users do and over a static KV cache, and prints both side by
 * side: `npm run interop -- --help`.
 */
import { createGpu, programOptions } from '@vramkit/adapter';
import { openDevice } from '@vramkit/core';
import { compareDecoding, type DecodeFigures } from './decode.js';
import { decodeInPage } from './decode-page.js';
import { decoderModel } from './onnx-model.js';
import { openOrt } from './onnx.js';
import { installRuntimes } from './runtimes.js';

const HELP = `Decodes with ONNX Runtime Web as its users do, and over a static KV cache.

usage: npm run interop -- [options]

  --steps N            tokens to decode (default: 2000)
  --start N            tokens that are there before (default: 0)
  --layers N           (default: 32)
  --heads N            (default: 1)
  --head-dim N         (default: 8)
  --in node|chromium   Dawn in Node, or a page (default: node)`;

const values = programOptions(HELP, {
  steps: 2000,
  start: 0,
  layers: 32,
  heads: 1,
  'head-dim': 8,
  in: 'node',
});
if (values.in !== 'node' && values.in !== 'chromium') {
  process.stderr.write(`--in is node or chromium, not '${values.in}'\n\n${HELP}\n`);
  process.exit(2);
}
const print = (line: string): void => void process.stdout.write(`${line}\n`);
const { in: place, start: startTokens, 'head-dim': headDim, ...sizes } = values;
const options = { ...sizes, startTokens, headDim };

async function decodeInNode() {
  const { gpu, driver } = await createGpu();
  print(`Dawn in Node on ${driver}`);
  using device = await openDevice({ gpu });
  const ort = await openOrt(device, gpu);
  // Dawn's promises do not keep a process alive by themselves.
  const alive = setInterval(() => undefined, 5);
  try {
    return await compareDecoding(ort, device, { ...options, model: decoderModel(options) });
  } finally {
    clearInterval(alive);
  }
}

await installRuntimes((line) => void process.stderr.write(`${line}\n`));
if (place === 'chromium') print('headless Chromium on SwiftShader');
const { usual, fixed, equal } = await (place === 'node' ? decodeInNode() : decodeInPage(options));
const { steps, layers, heads } = options;
print(
  `${steps} steps from ${startTokens} tokens on, ${2 * layers} tensors of K and V, ` +
    `${heads * headDim} elements a token in each`,
);
const row = (name: string, figure: (of: DecodeFigures) => string): void =>
  print(`${name.padEnd(38)}${figure(usual).padStart(14)}${figure(fixed).padStart(14)}`);
print(`${''.padEnd(38)}${'ORT default'.padStart(14)}${'static KV'.padStart(14)}`);
row('buffers created warming up', (of) => String(of.createdWarmingUp));
row('buffers created in the steps', (of) => String(of.buffersCreated));
row('buffers created per step', (of) => (of.buffersCreated / steps).toFixed(3));
row('most in one step', (of) => String(of.mostInAStep));
row('steps that created any', (of) => String(of.creatingSteps));
row('seconds', (of) => (of.totalMs / 1000).toFixed(1));
row('median step of the last half, ms', (of) => of.medianMs.toFixed(2));
print(equal ? 'every result is the same, bit for bit' : 'RESULTS DIFFER');
process.exit(equal ? 0 : 1);

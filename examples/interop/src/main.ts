/**
 * Decodes with ONNX Runtime Web as its users do and over a static KV cache, and prints both side by
 * side: `npm run interop -- [--steps 2000] [--start 0] [--layers 32] [--heads 1] [--head-dim 8]
 * [--in node|chromium]`.
 */
import { parseArgs } from 'node:util';
import { createGpu } from '@vramkit/adapter';
import { fail, openDevice } from '@vramkit/core';
import { compareDecoding, type DecodeFigures } from './decode.js';
import { decodeInPage } from './decode-page.js';
import { decoderModel } from './onnx-model.js';
import { openOrt } from './onnx.js';
import { installRuntimes } from './runtimes.js';

const { values } = parseArgs({
  options: {
    steps: { type: 'string', default: '2000' },
    start: { type: 'string', default: '0' },
    layers: { type: 'string', default: '32' },
    heads: { type: 'string', default: '1' },
    'head-dim': { type: 'string', default: '8' },
    in: { type: 'string', default: 'node' },
  },
});
const print = (line: string): void => void process.stdout.write(`${line}\n`);
const shape = {
  layers: Number(values.layers),
  heads: Number(values.heads),
  headDim: Number(values['head-dim']),
};
const options = { ...shape, steps: Number(values.steps), startTokens: Number(values.start) };

async function decodeInNode() {
  const { gpu, driver } = await createGpu();
  print(`Dawn in Node on ${driver}`);
  using device = await openDevice({ gpu });
  const ort = await openOrt(device, gpu);
  // Dawn's promises do not keep a process alive by themselves.
  const alive = setInterval(() => undefined, 5);
  try {
    return await compareDecoding(ort, device, { ...options, model: decoderModel(shape) });
  } finally {
    clearInterval(alive);
  }
}

await installRuntimes((line) => void process.stderr.write(`${line}\n`));
if (values.in !== 'node' && values.in !== 'chromium') {
  fail('invalid-argument', `--in is node or chromium, not ${values.in}`);
}
if (values.in === 'chromium') print('headless Chromium on SwiftShader');
const { usual, fixed, equal } = await (values.in === 'node'
  ? decodeInNode()
  : decodeInPage(options));
const { steps, startTokens, layers, heads, headDim } = options;
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

/**
 * Scores of tiny-moe against PyTorch's (`reference.json`): `npm run parity:moe`, with `-- --help`
 * for less or more. Ends with code 1 where one does not hold.
 *
 * - Tokens routed to each expert over the windows of the reference: a token on the border between
 *   two experts may go either way in f32, so counts may differ by one in a thousand.
 * - Traces of the Hessian by forward passes, against PyTorch's by double backward, both with the
 *   routing held: two estimates of one number agree within three joint standard errors.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createGpu, programOptions } from '@vramkit/adapter';
import { openDevice, Uploader, type VramDevice } from '@vramkit/core';
import { full } from '@vramkit/eviction';
import {
  createSession,
  loadModel,
  openModelFile,
  score,
  type LanguageModel,
} from '@vramkit/example-runtime';
import { DeviceMatrix, estimateHessianTrace, type CalibrationLoss } from '@vramkit/packer';
import { calibrate } from './calibrate.js';
import { HeldRouting } from './held-routing.js';
import { loadUnit, openMoeModel } from './moe-model.js';

/** What is read of the reference. */
interface Reference {
  readonly window_bytes: number;
  readonly activation_counts: readonly (readonly number[])[];
  readonly sensitivity: {
    readonly hessian_trace_mean: readonly (readonly number[])[];
    readonly hessian_trace_stderr: readonly (readonly number[])[];
  };
}

/** Starts and length of the reference's calibration windows. */
const calibrationStarts = [0, 4096, 16384, 20480, 32768, 40960];
const calibrationBytes = 257;

const HELP = `Compares counts of routing and traces of the Hessian with PyTorch's.

usage: npm run parity:moe -- [options]

  --windows N              windows of text whose routing is counted (default: 48)
  --probes N               random vectors for a trace (default: 8)
  --experts L.E[,L.E...]   layer and expert of each trace (default: 0.0,1.3,3.7)`;

const options = programOptions(HELP, { windows: 48, probes: 8, experts: '0.0,1.3,3.7' });

const folder = fileURLToPath(new URL('../../../tools/models/tiny-moe/', import.meta.url));
const text = await readFile(join(folder, 'eval.txt'));
// The file is part of this workspace, which fixes its shape.
const reference = JSON.parse(await readFile(join(folder, 'reference.json'), 'utf8')) as Reference;

async function checkCounts(device: VramDevice, model: LanguageModel): Promise<boolean> {
  const { window_bytes: bytes, activation_counts: expected } = reference;
  const count = options.windows;
  const windows = Array.from({ length: count }, (_, i) =>
    Uint32Array.from(text.subarray(i * bytes, (i + 1) * bytes - 1)),
  );
  const { counts } = await calibrate(device, model, windows);
  // Fewer windows than the reference has can only be compared as parts of all tokens.
  const part = (count * bytes) / text.length;
  let worst = 0;
  expected.forEach((layer, index) =>
    layer.forEach((tokens, expert) => {
      const found = counts.get(`${index}.${expert}`) ?? 0;
      worst = Math.max(worst, Math.abs(found / part - tokens) / tokens);
    }),
  );
  const limit = part < 1 ? 0.5 : 1e-3;
  console.log(`activationFrequency, ${count} windows: counts differ by ${worst.toExponential(2)}`);
  return worst <= limit;
}

/** A loss whose changed weights are written into the model, and taken back afterwards. */
function lossOf(
  device: VramDevice,
  held: HeldRouting,
  original: ReadonlyMap<string, Float32Array>,
): CalibrationLoss {
  const windows = calibrationStarts.map((start) =>
    Uint32Array.from(text.subarray(start, start + calibrationBytes)),
  );
  const write = async (changes: ReadonlyMap<string, Float32Array>): Promise<void> => {
    using uploader = new Uploader(device, { method: 'write-buffer' });
    const { layers, config } = held.model;
    const { intermediateSize, hiddenSize } = config;
    for (const [name, dense] of changes) {
      const [, layer, expert, part] = /layers\.(\d+)\..*experts\.(\d+)\.(w[123])/.exec(name) ?? [];
      const weights = layers[Number(layer)]?.feedForward;
      if (weights?.type !== 'experts') throw new Error(`no experts for ${name}`);
      const { gateUp, down } = weights;
      const matrix = part === 'w2' ? down : gateUp;
      if (!(matrix instanceof DeviceMatrix)) throw new Error('experts are not one matrix');
      const height = part === 'w2' ? hiddenSize : 2 * intermediateSize;
      const firstRow = Number(expert) * height + (part === 'w3' ? intermediateSize : 0);
      await matrix.upload(uploader, firstRow, { dense });
    }
  };
  const { session } = held;
  if (session === undefined) throw new Error('no session');
  return async (changes) => {
    await write(changes);
    let sum = 0;
    for (const [text, window] of windows.entries()) {
      held.text = text;
      const sequence = session.create(full({ blockSize: 16 }));
      for (const loss of await score(session, sequence, window)) sum += loss;
      session.free(sequence);
    }
    await write(original);
    return sum / windows.length / (calibrationBytes - 1);
  };
}

async function checkTraces(device: VramDevice, model: LanguageModel): Promise<boolean> {
  const file = await openMoeModel(folder);
  const held = new HeldRouting(model);
  const sizes = { kvTokens: 272, chunkTokens: calibrationBytes - 1, kvDtype: 'f32' } as const;
  using session = createSession(device, held.model, sizes);
  held.session = session;
  let holds = true;
  try {
    for (const id of options.experts.split(',')) {
      const unit = file.experts.find((each) => each.id === id);
      if (unit === undefined) throw new Error(`there is no expert ${id}`);
      const loaded = await loadUnit(unit);
      const original = new Map(loaded.tensors.map(({ name, values }) => [name, values]));
      const loss = lossOf(device, held, original);
      const { probes } = options;
      const { mean, standardError } = await estimateHessianTrace(loaded, { loss, probes });
      const { hessian_trace_mean: means, hessian_trace_stderr: errors } = reference.sensitivity;
      const expected = means[unit.layer]?.[unit.expert] ?? NaN;
      const joint = Math.hypot(standardError, errors[unit.layer]?.[unit.expert] ?? NaN);
      const apart = Math.abs(mean - expected) / joint;
      console.log(
        `hessianTrace of ${id}: ${mean.toFixed(3)} +- ${standardError.toFixed(3)}, PyTorch` +
          ` ${expected.toFixed(3)}: ${apart.toFixed(2)} joint standard errors apart`,
      );
      holds &&= apart <= 3;
    }
  } finally {
    await file.close();
  }
  return holds;
}

const { gpu, adapter } = await createGpu();
using device = await openDevice({ gpu });
const file = await openModelFile(folder);
using model = await loadModel(device, file, { floats: 'f32' }).finally(() => file.close());
console.log(`tiny-moe in f32 on ${adapter}`);
const traces = await checkTraces(device, model);
const passed = (await checkCounts(device, model)) && traces;
console.log(passed ? 'parity holds' : 'parity does NOT hold');
// Dawn keeps the process alive for as long as its entry point is reachable.
process.exit(passed ? 0 : 1);

/**
 * Second moments of what the matrices of a dense model multiply on the calibration windows.
 *
 * All inputs together would fill the host, so the layers run one at a time over all windows: what a
 * layer's matrices read is still in the workspace when it is done, its query, key and value read
 * the normed residual from before it, and the residual that it leaves is the embedding of a model
 * that has the next layer alone. The moments, 27 MB for a layer of SmolLM2, are kept in files.
 */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Batch, Uploader } from '@vramkit/core';
import { full } from '@vramkit/eviction';
import { createSession, type LayerWeights } from '@vramkit/example-runtime';
import { activationMoments, createMatrix } from '@vramkit/packer';
import type { ModelInputs } from './inputs.js';
import type { Replaceable, ReplaceableModel } from './replaceable-model.js';

/** What a layer leaves, each [tokens, width]. */
const LEFT = ['attention', 'normed', 'activation', 'residual'] as const;
type LayerInputs = Record<(typeof LEFT)[number], Float32Array>;

/** The matrices that multiply each input. */
const READERS = {
  stream: ['query', 'key', 'value'],
  attention: ['attentionOutput'],
  normed: ['gate', 'up'],
  activation: ['down'],
} as const;
type Input = keyof typeof READERS;

function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Runs `layers` over the windows, and the embedding of the model or another one. */
async function runLayers(
  { device, model }: ReplaceableModel,
  layers: readonly LayerWeights[],
  windows: readonly Uint32Array[],
  embedding = model.embedding,
): Promise<LayerInputs> {
  const cut = { ...model, config: { ...model.config, layers: 1 }, layers, embedding };
  const most = windows.reduce((length, window) => Math.max(length, window.length), 1);
  using session = createSession(device, cut, { kvTokens: 2 * most, chunkTokens: most });
  const { workspace } = session.forward;
  const found = LEFT.map((): Float32Array[] => []);
  for (const window of windows) {
    const sequence = session.create(full({ blockSize: 16 }));
    const batch = new Batch(device, 'calibration');
    session.recordStep(batch, sequence, window);
    batch.submit();
    for (const [i, name] of LEFT.entries()) {
      found[i]?.push(await workspace[name].slice(0, window.length).readFloats());
    }
    session.free(sequence);
  }
  const [attention, normed, activation, residual] = found.map(joined);
  if (!attention || !normed || !activation || !residual) throw new RangeError('no inputs');
  return { attention, normed, activation, residual };
}

/** Runs one layer over the residual [tokens, hidden] of all windows. */
async function runOver(
  model: ReplaceableModel,
  layer: LayerWeights,
  residual: Float32Array,
  windows: readonly Uint32Array[],
): Promise<LayerInputs> {
  const columns = model.model.config.hiddenSize;
  const rows = residual.length / columns;
  using embedding = createMatrix(model.device, { rows, columns, format: 'f32', label: 'residual' });
  using uploader = new Uploader(model.device, { method: 'write-buffer' });
  await embedding.upload(uploader, 0, { dense: residual });
  let start = 0;
  const places = windows.map(({ length }) => {
    start += length;
    return Uint32Array.from({ length }, (_, i) => start - length + i);
  });
  return await runLayers(model, [layer], places, embedding);
}

/** Root mean square norm of each row, times `weight`. */
function normedRows(rows: Float32Array, weight: Float32Array, epsilon: number): Float32Array {
  const width = weight.length;
  const normed = new Float32Array(rows.length);
  for (let start = 0; start < rows.length; start += width) {
    let power = 0;
    for (let i = 0; i < width; i++) power += (rows[start + i] ?? 0) ** 2;
    const factor = 1 / Math.sqrt(power / width + epsilon);
    for (let i = 0; i < width; i++) {
      normed[start + i] = (rows[start + i] ?? 0) * factor * (weight[i] ?? 0);
    }
  }
  return normed;
}

const fileOf = (folder: string, layer: number, input: Input): string =>
  join(folder, `${layer}.${input}.f64`);

async function writeMoments(
  model: ReplaceableModel,
  windows: readonly Uint32Array[],
  folder: string,
): Promise<void> {
  await mkdir(`${folder}.part`, { recursive: true });
  let before = (await runLayers(model, [], windows)).residual;
  const { hiddenSize, intermediateSize, heads, headDim, rmsNormEpsilon } = model.model.config;
  for (const [index, layer] of model.model.layers.entries()) {
    const weight = await layer.attentionNorm.readFloats();
    const left = await runOver(model, layer, before, windows);
    const inputs: [Input, Float32Array, number][] = [
      ['stream', normedRows(before, weight, rmsNormEpsilon), hiddenSize],
      ['attention', left.attention, heads * headDim],
      ['normed', left.normed, hiddenSize],
      ['activation', left.activation, intermediateSize],
    ];
    for (const [input, values, width] of inputs) {
      const moments = activationMoments(values, width);
      await writeFile(fileOf(`${folder}.part`, index, input), new Uint8Array(moments.buffer));
    }
    before = left.residual;
  }
  await rename(`${folder}.part`, folder);
}

function inputOf({ name }: Replaceable): Input {
  const part = name.split('.').at(-1) ?? '';
  for (const [input, readers] of Object.entries(READERS)) {
    // The keys are those of READERS.
    if ((readers as readonly string[]).includes(part)) return input as Input;
  }
  throw new RangeError(`no inputs of ${name}`);
}

/** Inputs over the windows; weights have to be those of the file when they are first asked for. */
export function denseInputs(
  model: ReplaceableModel,
  windows: readonly Uint32Array[],
  work: string,
): ModelInputs {
  const tokens = windows.reduce((sum, { length }) => sum + length, 0);
  const folder = join(work, `moments of ${tokens} tokens`);
  let last: { readonly path: string; readonly moments: Float64Array } | undefined;
  const read = async (path: string): Promise<Float64Array> => {
    const moments = new Float64Array(Uint8Array.from(await readFile(path)).buffer);
    last = { path, moments };
    return moments;
  };
  return {
    momentsOf: async (tensor) => {
      const path = fileOf(folder, tensor.layer, inputOf(tensor));
      if (last?.path === path) return last.moments;
      return read(path).catch(async () => {
        await writeMoments(model, windows, folder);
        return read(path);
      });
    },
    counts: () => Promise.resolve(undefined),
  };
}

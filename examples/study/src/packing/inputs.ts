/**
 * What the matrices of a model multiply on the calibration windows: second moments of the inputs,
 * and the tokens that each expert gets.
 *
 * A mixture of experts is asked once for all. Of a dense model the moments would fill the host, so
 * they are made layer by layer: the runtime runs the layers up to one, and what that layer's
 * matrices read is still in the workspace; the input of the next one's query, key and value is the
 * normed residual.
 */
import { Batch } from '@vramkit/core';
import { full } from '@vramkit/eviction';
import { calibrate } from '@vramkit/example-moe-pack';
import { createSession } from '@vramkit/example-runtime';
import { activationMoments } from '@vramkit/packer';
import type { Replaceable, ReplaceableModel } from './replaceable-model.js';

/** Answers for one model. */
export interface ModelInputs {
  /** Whether errors are weighed by the mean square of each input alone: all moments take hours. */
  readonly byColumn: boolean;
  /** Second moments of what a matrix multiplies, [columns, columns]. */
  momentsOf(tensor: Replaceable): Promise<Float64Array>;
  /** Tokens that used a unit; `undefined` where all tokens use all units. */
  counts(): Promise<ReadonlyMap<string, number> | undefined>;
}

/** Inputs of one layer, each [tokens, width]. */
interface LayerInputs {
  readonly attention: Float32Array;
  readonly normed: Float32Array;
  readonly activation: Float32Array;
  readonly residual: Float32Array;
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Runs the first `layers` layers and reads what the last of them left. */
async function runLayers(
  { device, model }: ReplaceableModel,
  layers: number,
  windows: readonly Uint32Array[],
): Promise<LayerInputs> {
  const cut = { ...model, layers: model.layers.slice(0, layers) };
  const most = windows.reduce((length, window) => Math.max(length, window.length), 1);
  using session = createSession(device, cut, { kvTokens: 2 * most, chunkTokens: most });
  const { workspace } = session.forward;
  const found: Record<keyof LayerInputs, Float32Array[]> = {
    attention: [],
    normed: [],
    activation: [],
    residual: [],
  };
  for (const window of windows) {
    const sequence = session.create(full({ blockSize: 16 }));
    const batch = new Batch(device, 'calibration');
    session.recordStep(batch, sequence, window);
    batch.submit();
    for (const name of ['attention', 'normed', 'activation', 'residual'] as const) {
      found[name].push(await workspace[name].slice(0, window.length).readFloats());
    }
    session.free(sequence);
  }
  return {
    attention: joined(found.attention),
    normed: joined(found.normed),
    activation: joined(found.activation),
    residual: joined(found.residual),
  };
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

function denseInputs(model: ReplaceableModel, windows: readonly Uint32Array[]): ModelInputs {
  let residual: { readonly layers: number; readonly rows: Float32Array } | undefined;
  let current: { readonly layer: number; readonly moments: Map<string, Float64Array> } | undefined;
  const layerMoments = async (layer: number): Promise<Map<string, Float64Array>> => {
    if (current?.layer === layer) return current.moments;
    const { config, layers } = model.model;
    const before =
      residual?.layers === layer
        ? residual.rows
        : (await runLayers(model, layer, windows)).residual;
    const weight = await layers[layer]?.attentionNorm.readFloats();
    if (weight === undefined) throw new RangeError(`no layer ${layer}`);
    const inputs = await runLayers(model, layer + 1, windows);
    residual = { layers: layer + 1, rows: inputs.residual };
    const { hiddenSize, intermediateSize, heads, headDim, rmsNormEpsilon } = config;
    const stream = activationMoments(normedRows(before, weight, rmsNormEpsilon), hiddenSize);
    const normed = activationMoments(inputs.normed, hiddenSize);
    const moments = new Map([
      ...['query', 'key', 'value'].map((name) => [name, stream] as const),
      ...['gate', 'up'].map((name) => [name, normed] as const),
      ['attentionOutput', activationMoments(inputs.attention, heads * headDim)] as const,
      ['down', activationMoments(inputs.activation, intermediateSize)] as const,
    ]);
    current = { layer, moments };
    return moments;
  };
  return {
    byColumn: true,
    momentsOf: async ({ name, layer }) => {
      const found = (await layerMoments(layer)).get(name.split('.').at(-1) ?? '');
      if (found === undefined) throw new RangeError(`no inputs of ${name}`);
      return found;
    },
    counts: () => Promise.resolve(undefined),
  };
}

/** Inputs over the windows; runs when first asked. Weights have to be those of the file then. */
export function modelInputs(model: ReplaceableModel, windows: readonly Uint32Array[]): ModelInputs {
  if (model.model.config.experts === 0) return denseInputs(model, windows);
  let pending: ReturnType<typeof calibrate> | undefined;
  const calibration = (): ReturnType<typeof calibrate> =>
    (pending ??= calibrate(model.device, model.model, windows));
  return {
    byColumn: false,
    momentsOf: async ({ name, unit }) => {
      const found = (await calibration()).moments.get(unit);
      const moments = name.endsWith('.down') ? found?.inner : found?.input;
      if (moments === undefined) throw new RangeError(`no inputs of ${name}`);
      return moments;
    },
    counts: async () => (await calibration()).counts,
  };
}

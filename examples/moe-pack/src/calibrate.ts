/**
 * What a calibration text does to the experts: how many tokens each gets, and the second moments of
 * what its matrices multiply.
 *
 * The runtime is run with its first layer alone, then with two, and so on: behind the last one the
 * workspace still holds the normed input, the choice of experts and the activations of that layer.
 * An expert without tokens has no moments; it gets those of its whole layer.
 */
import { Batch, type VramDevice } from '@vramkit/core';
import { full } from '@vramkit/eviction';
import { createSession, type LanguageModel } from '@vramkit/example-runtime';
import { activationMoments } from '@vramkit/packer';

/** Counts and moments by unit and role. */
export interface Calibration {
  /** Tokens routed to each expert, by unit id. */
  readonly counts: ReadonlyMap<string, number>;
  /** Moments of the input of gate and up, and of down, by unit id. */
  readonly moments: ReadonlyMap<
    string,
    { readonly input: Float64Array; readonly inner: Float64Array }
  >;
}

/** Rows of one layer: which expert, with which vectors. */
interface LayerRows {
  readonly ids: number[];
  readonly inputs: Float32Array[];
  readonly inners: Float32Array[];
}

/** Runs windows of token ids; each at most as long as the session's step. */
export async function calibrate(
  device: VramDevice,
  model: LanguageModel,
  windows: readonly Uint32Array[],
): Promise<Calibration> {
  const { experts, hiddenSize, intermediateSize } = model.config;
  const counts = new Map<string, number>();
  const moments = new Map<string, { input: Float64Array; inner: Float64Array }>();
  for (let layer = 0; layer < model.layers.length; layer++) {
    const rows = await layerRows(device, model, layer, windows);
    const of = (vectors: readonly Float32Array[], width: number): Float64Array => {
      const all = new Float32Array(vectors.length * width);
      vectors.forEach((vector, i) => all.set(vector, i * width));
      return activationMoments(all, width);
    };
    for (let expert = 0; expert < experts; expert++) {
      const own = rows.ids.flatMap((id, i) => (id === expert ? [i] : []));
      const used = own.length > 0 ? own : rows.ids.map((_, i) => i);
      const pick = (vectors: readonly Float32Array[]): Float32Array[] =>
        used.flatMap((i) => vectors[i] ?? []);
      counts.set(`${layer}.${expert}`, own.length);
      moments.set(`${layer}.${expert}`, {
        input: of(pick(rows.inputs), hiddenSize),
        inner: of(pick(rows.inners), intermediateSize),
      });
    }
  }
  return { counts, moments };
}

async function layerRows(
  device: VramDevice,
  model: LanguageModel,
  layer: number,
  windows: readonly Uint32Array[],
): Promise<LayerRows> {
  const { expertsPerToken, hiddenSize, intermediateSize } = model.config;
  const cut = { ...model, layers: model.layers.slice(0, layer + 1) };
  const most = windows.reduce((length, window) => Math.max(length, window.length), 1);
  const options = { kvTokens: 2 * most, chunkTokens: most, kvDtype: 'f32' } as const;
  const session = createSession(device, cut, options);
  const found: LayerRows = { ids: [], inputs: [], inners: [] };
  try {
    const { workspace } = session.forward;
    for (const window of windows) {
      const sequence = session.create(full({ blockSize: 16 }));
      const batch = new Batch(device, 'calibration');
      session.recordStep(batch, sequence, window);
      batch.submit();
      const rows = window.length * expertsPerToken;
      const ids = (await workspace.experts?.ids.slice(0, rows).read()) ?? new Uint32Array();
      const inputs = await workspace.normed.slice(0, window.length).readFloats();
      const inners = await workspace.activation.slice(0, rows).readFloats();
      ids.forEach((id, i) => {
        const token = Math.floor(i / expertsPerToken);
        found.ids.push(Number(id));
        found.inputs.push(inputs.slice(token * hiddenSize, (token + 1) * hiddenSize));
        found.inners.push(inners.slice(i * intermediateSize, (i + 1) * intermediateSize));
      });
      session.free(sequence);
    }
    return found;
  } finally {
    session.dispose();
  }
}

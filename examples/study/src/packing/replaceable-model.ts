/**
 * A model on the device whose matrices can be replaced by what any way of storing leaves of them.
 *
 * Packed matrices are kept as floats, so that a way needs no kernel of its own to be judged.
 * Experts are f32: a packed matrix multiplies by exactly the values that are written here. The
 * matrices of a dense model are f16, which a software driver multiplies with twice as fast; what
 * that rounds is 1/4000 of a value, far below the error of any way. A unit is what gets one width:
 * an expert with its gate, up and down, or a matrix of a dense model. Embedding, head, norms and
 * routers stay as they are in the file.
 */
import { Uploader, type VramDevice } from '@vramkit/core';
import { full } from '@vramkit/eviction';
import {
  createSession,
  loadModel,
  openModelFile,
  score,
  type InferenceSession,
  type LanguageModel,
  type LayerWeights,
  type ModelFile,
  type ModelTensor,
} from '@vramkit/example-runtime';
import { createMatrix, denseToF32, dequantize, DeviceMatrix } from '@vramkit/packer';

/** A matrix that can be replaced. */
export interface Replaceable {
  readonly name: string;
  /** The unit that it belongs to. */
  readonly unit: string;
  readonly layer: number;
  readonly rows: number;
  readonly columns: number;
  /** The weights of the file, [rows, columns]. */
  readonly values: Float32Array;
  readonly matrix: DeviceMatrix;
  readonly firstRow: number;
}

/** See the head of this file. */
export class ReplaceableModel implements Disposable {
  readonly device: VramDevice;
  readonly model: LanguageModel;
  readonly tensors: readonly Replaceable[];
  readonly #made: readonly DeviceMatrix[];
  #session: InferenceSession | undefined;

  /** Use {@link openReplaceable}. */
  constructor(
    device: VramDevice,
    model: LanguageModel,
    tensors: readonly Replaceable[],
    made: readonly DeviceMatrix[],
  ) {
    this.device = device;
    this.model = model;
    this.tensors = tensors;
    this.#made = made;
  }

  /** Puts `values` in the place of a matrix. */
  async write(tensor: Replaceable, values: Float32Array): Promise<void> {
    using uploader = new Uploader(this.device, { method: 'write-buffer' });
    await tensor.matrix.upload(uploader, tensor.firstRow, { dense: values });
  }

  /** Mean loss of each window's tokens, nats; windows are as long as each other. */
  async losses(windows: readonly Uint32Array[]): Promise<number[]> {
    const most = windows.reduce((length, window) => Math.max(length, window.length), 1);
    this.#session ??= createSession(this.device, this.model, {
      kvTokens: 2 * most,
      chunkTokens: most,
    });
    const means: number[] = [];
    for (const window of windows) {
      const sequence = this.#session.create(full({ blockSize: 16 }));
      const losses = await score(this.#session, sequence, window);
      this.#session.free(sequence);
      means.push(losses.reduce((sum, loss) => sum + loss, 0) / losses.length);
    }
    return means;
  }

  [Symbol.dispose](): void {
    this.#session?.dispose();
    for (const matrix of this.#made) matrix.dispose();
    this.model.dispose();
  }
}

async function valuesOf(tensor: ModelTensor): Promise<Float32Array> {
  const bytes = await tensor.read(0, tensor.rows);
  const { type } = tensor;
  return type === 'F32' || type === 'F16' || type === 'BF16'
    ? denseToF32(type, bytes)
    : dequantize(type, bytes);
}

/** What {@link openReplaceable} builds on the way. */
class Builder {
  readonly tensors: Replaceable[] = [];
  readonly made: DeviceMatrix[] = [];
  readonly #device: VramDevice;
  readonly #file: ModelFile;

  constructor(device: VramDevice, file: ModelFile) {
    this.#device = device;
    this.#file = file;
  }

  /** Lists the parts that lie below each other in `matrix`. */
  async place(matrix: DeviceMatrix, names: readonly string[], unitOf?: string): Promise<void> {
    let firstRow = this.tensors
      .filter((each) => each.matrix === matrix)
      .reduce((sum, { rows }) => sum + rows, 0);
    for (const name of names) {
      const tensor = this.#file.tensor(name);
      const { rows, columns } = tensor;
      const layer = Number(/layers\.(\d+)/.exec(name)?.[1]);
      const values = await valuesOf(tensor);
      const unit = unitOf ?? name;
      this.tensors.push({ name, unit, layer, rows, columns, values, matrix, firstRow });
      firstRow += rows;
    }
  }

  /** A new f16 matrix of these parts. */
  async make(names: readonly string[]): Promise<DeviceMatrix> {
    const parts = names.map((name) => this.#file.tensor(name));
    const rows = parts.reduce((sum, part) => sum + part.rows, 0);
    const layout = { rows, columns: parts[0]?.columns ?? 0, format: 'f16' } as const;
    const matrix = createMatrix(this.#device, { ...layout, label: names.join(' ') });
    this.made.push(matrix);
    await this.place(matrix, names);
    return matrix;
  }

  async denseLayer(layer: LayerWeights, index: number): Promise<LayerWeights> {
    const name = (part: string): string => `layers.${index}.${part}`;
    const stacked = async (names: readonly string[]) => {
      const matrix = await this.make(names.map(name));
      return { rows: matrix.rows, parts: [{ matrix, offset: 0 }] };
    };
    const queryKeyValue = await stacked(['query', 'key', 'value']);
    const attentionOutput = await this.make([name('attentionOutput')]);
    const gateUp = await stacked(['gate', 'up']);
    const down = await this.make([name('down')]);
    return {
      ...layer,
      ...{ queryKeyValue, attentionOutput },
      feedForward: { type: 'dense', gateUp, down },
    };
  }

  async expertLayer(layer: LayerWeights, index: number, experts: number): Promise<LayerWeights> {
    const { feedForward } = layer;
    if (feedForward.type !== 'experts') throw new RangeError('a layer without experts');
    const { gateUp, down } = feedForward;
    if (!(gateUp instanceof DeviceMatrix) || !(down instanceof DeviceMatrix)) {
      throw new RangeError('experts are not one matrix');
    }
    for (let expert = 0; expert < experts; expert++) {
      const name = (part: string): string => `layers.${index}.experts.${expert}.${part}`;
      const unit = `${index}.${expert}`;
      await this.place(gateUp, [name('gate'), name('up')], unit);
      await this.place(down, [name('down')], unit);
    }
    return layer;
  }
}

/** Loads a model; the caller disposes it. */
export async function openReplaceable(device: VramDevice, path: string): Promise<ReplaceableModel> {
  const file = await openModelFile(path);
  try {
    const loaded = await loadModel(device, file, { floats: 'f32' });
    const builder = new Builder(device, file);
    const { experts } = loaded.config;
    const layers: LayerWeights[] = [];
    for (const [index, layer] of loaded.layers.entries()) {
      layers.push(
        experts === 0
          ? await builder.denseLayer(layer, index)
          : await builder.expertLayer(layer, index, experts),
      );
    }
    const model = {
      ...loaded,
      layers,
      dispose: () => loaded.dispose(),
      [Symbol.dispose]: () => loaded.dispose(),
    };
    const result = new ReplaceableModel(device, model, builder.tensors, builder.made);
    if (experts === 0) for (const each of result.tensors) await result.write(each, each.values);
    return result;
  } finally {
    await file.close();
  }
}

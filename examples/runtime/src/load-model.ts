/**
 * Streams the weights of a model file onto the device.
 *
 * Host memory is bounded: a few megabytes of rows are read, converted and written at a time; of a
 * packed file a whole tensor, whose checksum is compared.
 * Quantized blocks stay quantized (4-bit blocks as 4-bit codes, wider ones as 8-bit codes); 16-bit
 * floats stay 16-bit; f32 stays f32. `floats` overrides the latter two, for checks against
 * references.
 *
 * A failure at any point frees what was taken.
 *
 * Length: what is read into which memory, for resident, streamed and cached weights, is one walk.
 */
import {
  assertArgument,
  createTensor,
  throwIfAborted,
  Uploader,
  VramError,
  type MemoryResource,
  type Tensor,
  type VramDevice,
} from '@vramkit/core';
import {
  affineFormat,
  createExpertArena,
  createMatrix,
  denseToF32,
  dequantize,
  matrixLayout,
  type DeviceMatrix,
  type ExpertCache,
  type ExpertWidth,
  type FactorFormat,
  type GroupSize,
  type MatrixFormat,
  type MatrixRows,
} from '@vramkit/packer';
import type { ExpertCaching } from './experts/expert-caching.js';
import { openExpertCache } from './experts/open-expert-cache.js';
import { convertRows, joinRows, packedRows } from './matrix-rows.js';
import type { ModelConfig, ModelFile, ModelTensor } from './model-file.js';
import { slotBytes } from './streaming/slot-memory.js';
import type {
  DenseFeedForward,
  ExpertFeedForward,
  ExpertMatrices,
  LanguageModel,
  LayerWeights,
  StackedMatrix,
} from './weights.js';

/** Options of {@link loadModel}. */
export interface LoadModelOptions {
  /** Storage of float matrices: as in the file, or all of one type. Default: 'as-stored'. */
  readonly floats?: 'as-stored' | 'f32' | 'f16';
  /**
   * Keeps only some experts on the device and reads the others when routers choose them. The file
   * has to stay open for as long as the model lives. Default: all are resident.
   */
  readonly experts?: ExpertCaching;
  /** Stops between chunks; everything is freed. */
  readonly signal?: AbortSignal;
  /** Called with file bytes read so far and in all. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/** Most bytes of a tensor that are on the host at once; conversion at most triples it. */
const CHUNK_BYTES = 4 * 1024 * 1024;

interface StoredAs {
  readonly format: MatrixFormat;
  readonly groupSize?: GroupSize;
  readonly factors?: FactorFormat;
}

/** Loads a model, whole or in parts; holds everything that has to be freed in the end. */
export class ModelLoader {
  readonly #device: VramDevice;
  readonly #file: ModelFile;
  readonly #options: LoadModelOptions;
  readonly #uploader: Uploader;
  readonly #owned: { dispose(): void }[] = [];
  /** Outlives the loading, for experts that are read later. */
  #expertUploader: Uploader | undefined;
  #doneBytes = 0;
  /** Whether experts that are read count as progress. */
  #isLoading = true;
  /** Where the memory of matrices and vectors comes from now. */
  #memory: MemoryResource;

  constructor(
    device: VramDevice,
    file: ModelFile,
    options: LoadModelOptions,
    method: 'measure' | 'write-buffer' = 'measure',
  ) {
    assertArgument(
      options.experts === undefined || file.config.experts > 0,
      `${file.path} has no experts to keep under a budget`,
    );
    this.#device = device;
    this.#memory = device.memory;
    this.#file = file;
    this.#options = options;
    this.#uploader = new Uploader(device, { method });
  }

  async load(): Promise<LanguageModel> {
    const { config } = this.#file;
    const frame = await this.frame();
    const layers: LayerWeights[] = [];
    for (let index = 0; index < config.layers; index++) layers.push(await this.layer(index));
    await this.#device.settle();
    return { config, ...frame, layers, ...disposal(() => this.release()) };
  }

  /** What is outside the layers. */
  async frame(): Promise<Pick<LanguageModel, 'embedding' | 'finalNorm' | 'head'>> {
    const embedding = await this.matrix([this.#file.tensor('embedding')], 'embedding');
    const finalNorm = await this.#vector(this.#file.tensor('finalNorm'));
    const head = this.#file.config.tiedEmbeddings
      ? embedding
      : await this.matrix([this.#file.tensor('head')], 'head');
    return { embedding, finalNorm, head };
  }

  /**
   * One layer, its matrices and vectors in `memory`. Experts of several widths stay outside it.
   * @param memory Default: the device's.
   */
  async layer(index: number, memory?: MemoryResource): Promise<LayerWeights> {
    this.#memory = memory ?? this.#device.memory;
    try {
      return await this.#layer(index, this.#file.config);
    } finally {
      this.#memory = this.#device.memory;
    }
  }

  /** The most bytes that a layer takes in a memory that aligns to 256 B. */
  layerBytes(index: number): number {
    const prefix = `layers.${index}.`;
    const { experts } = this.#options;
    const { layers } = this.#file.config;
    let bytes = experts === undefined ? 0 : slotBytes(Math.floor(experts.budgetBytes / layers));
    for (const [name, source] of this.#file.tensors) {
      if (!name.startsWith(prefix)) continue;
      if (experts !== undefined && name.startsWith(`${prefix}experts.`)) continue;
      const { rows, columns } = source;
      const layout = matrixLayout({ ...this.#storedAs(source), rows, columns });
      const { codeWordsPerRow, scaleWordsPerRow } = layout;
      // A vector is one row, and f32 on the device whatever it is in the file.
      const codes = rows === 1 ? columns : rows * codeWordsPerRow;
      bytes += slotBytes(4 * codes) + slotBytes(4 * rows * scaleWordsPerRow);
    }
    return bytes;
  }

  /** Frees all weights; idempotent. */
  release(): void {
    for (const each of this.#owned.splice(0)) each.dispose();
    this.#expertUploader?.dispose();
  }

  /** Ends the staging of uploads. */
  finish(): void {
    this.#isLoading = false;
    this.#uploader.dispose();
  }

  async #layer(index: number, config: ModelConfig): Promise<LayerWeights> {
    const name = (part: string): string => `layers.${index}.${part}`;
    const tensor = (part: string): ModelTensor => this.#file.tensor(name(part));
    const attentionNorm = await this.#vector(tensor('attentionNorm'));
    const queryKeyValue = await this.#stacked(
      [tensor('query'), tensor('key'), tensor('value')],
      name('qkv'),
    );
    const output = tensor('attentionOutput');
    const attentionOutput = await this.matrix([output], output.name);
    const feedForwardNorm = await this.#vector(tensor('feedForwardNorm'));
    const feedForward =
      config.experts === 0 ? await this.#dense(index) : await this.#experts(index, config.experts);
    return { attentionNorm, queryKeyValue, attentionOutput, feedForwardNorm, feedForward };
  }

  async #dense(index: number): Promise<DenseFeedForward> {
    const name = (part: string): string => `layers.${index}.${part}`;
    const parts = [this.#file.tensor(name('gate')), this.#file.tensor(name('up'))];
    const gateUp = await this.#stacked(parts, name('gate and up'));
    const down = await this.matrix([this.#file.tensor(name('down'))], name('down'));
    return { type: 'dense', gateUp, down };
  }

  async #experts(index: number, experts: number): Promise<ExpertFeedForward> {
    const name = (part: string): string => `layers.${index}.${part}`;
    const router = await this.matrix([this.#file.tensor(name('router'))], name('router'));
    const of = (expert: number, part: string): ModelTensor =>
      this.#file.tensor(name(`experts.${expert}.${part}`));
    const each = Array.from({ length: experts }, (_, expert) => expert);
    const { experts: caching } = this.#options;
    if (caching !== undefined) {
      const parts = each.map((expert) => [
        of(expert, 'gate'),
        of(expert, 'up'),
        of(expert, 'down'),
      ]);
      const cache = await this.#expertCache(parts, name('experts'), caching);
      const [gateUp, down] = cache.arenas;
      if (gateUp === undefined || down === undefined) throw new RangeError('no arenas');
      const readsAhead = caching.prefetch === true;
      return { type: 'experts', router, gateUp, down, cache, readsAhead };
    }
    const gateUps = each.map((expert) => [of(expert, 'gate'), of(expert, 'up')]);
    const gateUp = await this.#expertMatrices(gateUps, name('experts gate and up'));
    const downs = each.map((expert) => [of(expert, 'down')]);
    const down = await this.#expertMatrices(downs, name('experts down'));
    return { type: 'experts', router, gateUp, down };
  }

  /** One stacked matrix where all experts are stored alike, else an arena with their widths. */
  async #expertMatrices(
    experts: readonly (readonly ModelTensor[])[],
    label: string,
  ): Promise<ExpertMatrices> {
    const parts = experts.flat();
    const [first] = parts;
    if (first === undefined) throw new RangeError(`'${label}' has no experts`);
    if (parts.every((part) => this.#sameStorage(part, first))) return this.matrix(parts, label);
    const { widths, widthOf } = this.#widths(experts);
    const rowsPerExpert = (experts[0] ?? []).reduce((sum, part) => sum + part.rows, 0);
    const sizes = { experts: experts.length, rowsPerExpert, columns: first.columns };
    const arena = createExpertArena(this.#device, { ...sizes, label, widths });
    this.#owned.push(arena);
    for (const [expert, own] of experts.entries()) {
      const width = widthOf[expert] ?? 0;
      const format = widths[width]?.format ?? 'f32';
      const rows = await this.#whole(own, format);
      const request = { width, rows: joinRows(rows), ...this.#signal() };
      await arena.tryStore(this.#uploader, expert, request);
    }
    return arena;
  }

  /** The widths that experts are stored in, with a slot for each expert, and which each has. */
  #widths(experts: readonly (readonly ModelTensor[])[]): {
    readonly widths: readonly ExpertWidth[];
    readonly widthOf: readonly number[];
  } {
    const widths: (ExpertWidth & { slots: number })[] = [];
    const widthOf = experts.map((own) => {
      const [lead] = own;
      if (lead === undefined) throw new RangeError('an expert without matrices');
      if (!own.every((part) => this.#sameStorage(part, lead))) {
        const names = own.map((part) => part.storedName).join("', '");
        throw new VramError('unsupported', `'${names}' belong together but are stored apart`);
      }
      const { format, groupSize, factors } = this.#storedAs(lead);
      let index = widths.findIndex(
        (w) => w.format === format && w.groupSize === groupSize && w.factors === factors,
      );
      if (index < 0) {
        const group = groupSize && { groupSize, ...(factors && { factors }) };
        index = widths.push({ format, ...group, slots: 0 }) - 1;
      }
      const width = widths[index];
      if (width !== undefined) width.slots += 1;
      return index;
    });
    return { widths, widthOf };
  }

  /** A cache of one layer's experts, each its gate, up and down. */
  async #expertCache(
    experts: readonly (readonly ModelTensor[])[],
    label: string,
    caching: ExpertCaching,
  ): Promise<ExpertCache> {
    this.#expertUploader ??= new Uploader(this.#device, { method: 'write-buffer' });
    const { layers, expertsPerToken } = this.#file.config;
    const cache = await openExpertCache(this.#device, this.#expertUploader, {
      ...{ label, experts, ...this.#widths(experts), layers, expertsPerToken, caching },
      read: (parts, format) => this.#whole(parts, format),
      ...this.#signal(),
    });
    this.#owned.push(cache);
    return cache;
  }

  async #vector(source: ModelTensor): Promise<Tensor> {
    const bytes = await this.#read(source, 0, source.rows);
    const values =
      source.type === 'F32' || source.type === 'F16' || source.type === 'BF16'
        ? denseToF32(source.type, bytes)
        : dequantize(source.type, bytes);
    const layout = { dtype: 'f32', kind: 'weights', label: source.name } as const;
    const memory = this.#memory;
    const tensor = createTensor(this.#device, { ...layout, shape: [values.length], memory });
    this.#owned.push(tensor);
    tensor.write(values);
    return tensor;
  }

  /** One matrix where all parts are stored alike, else one for each part. */
  async #stacked(parts: readonly ModelTensor[], label: string): Promise<StackedMatrix> {
    const rows = parts.reduce((sum, part) => sum + part.rows, 0);
    const [first] = parts;
    const alike = parts.every((part) => first !== undefined && this.#sameStorage(part, first));
    if (alike) return { rows, parts: [{ matrix: await this.matrix(parts, label), offset: 0 }] };
    const separate: { matrix: DeviceMatrix; offset: number }[] = [];
    let offset = 0;
    for (const part of parts) {
      separate.push({ matrix: await this.matrix([part], part.name), offset });
      offset += part.rows;
    }
    return { rows, parts: separate };
  }

  #sameStorage(a: ModelTensor, b: ModelTensor): boolean {
    const x = this.#storedAs(a);
    const y = this.#storedAs(b);
    return x.format === y.format && x.groupSize === y.groupSize && x.factors === y.factors;
  }

  /** How a tensor is kept on the device. */
  #storedAs(source: ModelTensor): StoredAs {
    const { type, packed } = source;
    if (packed !== undefined) return packed.layout;
    const floats = this.#options.floats ?? 'as-stored';
    if (type === 'F32') return { format: floats === 'f16' ? 'f16' : 'f32' };
    if (type === 'F16') return { format: floats === 'f32' ? 'f32' : 'f16' };
    if (type === 'BF16') return { format: floats === 'as-stored' ? 'bf16' : floats };
    const { bits, groupSize } = affineFormat(type);
    return { format: bits === 4 ? 'affine4' : 'affine8', groupSize };
  }

  /** The parts one below the other; all stored as the first one is. */
  async matrix(parts: readonly ModelTensor[], label: string): Promise<DeviceMatrix> {
    const [first] = parts;
    if (first === undefined) throw new RangeError(`'${label}' has no parts`);
    const stored = this.#storedAs(first);
    const rows = parts.reduce((sum, part) => sum + part.rows, 0);
    const { columns } = first;
    const memory = this.#memory;
    const matrix = createMatrix(this.#device, { ...stored, rows, columns, label, memory });
    this.#owned.push(matrix);
    let firstRow = 0;
    for (const part of parts) {
      // A checksum is one of the whole tensor.
      const [words] = (await packedRows([part], this.#options.signal)) ?? [];
      if (words !== undefined) {
        await matrix.upload(this.#uploader, firstRow, words, this.#signal());
        this.#advance(part.rows * part.rowBytes);
      }
      const chunk = Math.max(1, Math.floor(CHUNK_BYTES / part.rowBytes));
      for (let row = 0; words === undefined && row < part.rows; row += chunk) {
        const count = Math.min(chunk, part.rows - row);
        const bytes = await this.#read(part, row, count);
        const data = convertRows(part, bytes, count, stored.format);
        await matrix.upload(this.#uploader, firstRow + row, data, this.#signal());
      }
      firstRow += part.rows;
    }
    return matrix;
  }

  /** Whole tensors as the device stores them. */
  async #whole(parts: readonly ModelTensor[], format: MatrixFormat): Promise<MatrixRows[]> {
    throwIfAborted(this.#options.signal);
    const words = await packedRows(parts, this.#options.signal);
    if (words !== undefined) {
      for (const { rows, rowBytes } of parts) this.#advance(rows * rowBytes);
      return words;
    }
    const rows: MatrixRows[] = [];
    for (const part of parts) {
      rows.push(convertRows(part, await this.#read(part, 0, part.rows), part.rows, format));
    }
    return rows;
  }

  async #read(source: ModelTensor, row: number, count: number): Promise<Uint8Array> {
    throwIfAborted(this.#options.signal);
    const bytes = await source.read(row, count);
    this.#advance(bytes.byteLength);
    return bytes;
  }

  #advance(bytes: number): void {
    if (!this.#isLoading) return;
    this.#doneBytes += bytes;
    this.#options.onProgress?.(this.#doneBytes, this.#file.tensorBytes);
  }

  #signal(): { signal?: AbortSignal } {
    return this.#options.signal === undefined ? {} : { signal: this.#options.signal };
  }
}

function disposal(dispose: () => void): { dispose(): void; [Symbol.dispose](): void } {
  return { dispose, [Symbol.dispose]: dispose };
}

/**
 * Loads a model; the caller disposes it.
 * @throws VramError `out-of-memory` naming kind and shortfall; `not-found` or `corrupt-data` naming
 * file and tensor; `invalid-argument` for a budget of experts where there are none; `aborted`;
 * `device-lost`.
 */
export async function loadModel(
  device: VramDevice,
  file: ModelFile,
  options: LoadModelOptions = {},
): Promise<LanguageModel> {
  const loader = new ModelLoader(device, file, options);
  try {
    return await loader.load();
  } catch (error) {
    loader.release();
    throw error;
  } finally {
    loader.finish();
  }
}

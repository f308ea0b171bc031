/**
 * Mean and covariance of the queries of a prompt, per layer and head, summed on the device.
 *
 * For policies that expect the queries to come to be like those seen (ExpectedAttention). Hand in
 * queries before their rotation; which of them count is the caller's choice.
 */
import {
  allocate,
  assertArgument,
  Batch,
  checkInteger,
  fail,
  type Allocation,
  type MemoryResource,
  type VramDevice,
} from '@vramkit/core';
import { MOMENT_LANES, queryMomentsKernel } from './kernels/query-moments.wgsl.js';
import { bindableRows, checkRows, rowsPerBinding, type StridedRows } from './strided-rows.js';

/** Shape of {@link QueryMoments}. */
export interface QueryMomentsOptions {
  /** Layers of the model. */
  readonly layers: number;
  /** Query heads of a layer. */
  readonly heads: number;
  /** Elements of a head, a multiple of 4. */
  readonly headDim: number;
  /** Where the memory comes from. Default: the device's budgeted memory. */
  readonly memory?: MemoryResource;
}

/** What the queries were like. */
export interface QueryStatistics {
  readonly heads: number;
  /** `[layers, heads, headDim]`. */
  readonly mean: Float32Array<ArrayBuffer>;
  /** `[layers, heads, headDim, headDim]`, symmetric. */
  readonly covariance: Float32Array<ArrayBuffer>;
}

/** Sums over queries; the caller disposes it. */
export class QueryMoments {
  readonly #device: VramDevice;
  readonly #shape: QueryMomentsOptions;
  readonly #memory: MemoryResource;
  readonly #layers: Allocation[] = [];
  #count = 0;
  #disposed = false;

  /**
   * Takes `layers * heads * (headDim + 1) * headDim` floats of kind 'kv'.
   * @throws VramError `out-of-memory` or `device-lost`, with nothing taken; `invalid-argument`.
   */
  constructor(device: VramDevice, options: QueryMomentsOptions) {
    const layers = checkInteger('layers', options.layers, 1);
    const heads = checkInteger('heads', options.heads, 1);
    const headDim = checkInteger('headDim', options.headDim, 4);
    assertArgument(headDim % 4 === 0, `headDim ${headDim} is not a multiple of 4`, { headDim });
    this.#device = device;
    this.#shape = options;
    this.#memory = options.memory ?? device.memory;
    try {
      for (let layer = 0; layer < layers; layer++) {
        const sizeBytes = heads * (headDim + 1) * headDim * 4;
        const request = { sizeBytes, kind: 'kv', label: 'query moments' } as const;
        this.#layers.push(allocate(this.#memory, request));
      }
      const batch = new Batch(device, 'clear query moments');
      for (const sums of this.#layers) batch.clear(sums);
      batch.submit();
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** Queries added so far. */
  get count(): number {
    return this.#count;
  }

  /**
   * Records the addition of `tokens` queries of one layer, rows of `heads * headDim`. They count
   * once layer 0 is added.
   * @throws VramError `invalid-argument` where rows or layer do not fit; `disposed`.
   */
  add(batch: Batch, layer: number, queries: StridedRows, tokens: number): void {
    if (this.#disposed) fail('disposed', 'the query moments were disposed');
    const { heads, headDim } = this.#shape;
    checkInteger('layer', layer, 0, this.#shape.layers - 1);
    checkInteger('tokens', tokens);
    checkRows('queries', queries, tokens, heads * headDim);
    const moments = this.#layers[layer];
    if (moments === undefined) return;
    const { limits } = this.#device;
    const step = rowsPerBinding(limits, [queries], tokens);
    for (let first = 0; first < tokens; first += step) {
      const count = Math.min(step, tokens - first);
      const { range, offset, rowStride } = bindableRows(limits, queries, first, count);
      batch.dispatch(queryMomentsKernel, {
        params: {},
        bindings: { queries: range, moments },
        uniforms: { tokens: count, heads, headDim, queryOffset: offset, queryStride: rowStride },
        workgroups: Math.ceil((heads * (headDim + 1) * headDim) / 4 / MOMENT_LANES),
      });
    }
    if (layer === 0) this.#count += tokens;
  }

  /**
   * Mean and covariance of the queries added so far, zeros where there were none, after all work
   * submitted. One wait for the device per layer.
   * @throws VramError `disposed`; `device-lost`.
   */
  async read(): Promise<QueryStatistics> {
    if (this.#disposed) fail('disposed', 'the query moments were disposed');
    const { layers, heads, headDim } = this.#shape;
    const mean = new Float32Array(layers * heads * headDim);
    const covariance = new Float32Array(mean.length * headDim);
    const count = Math.max(1, this.#count);
    const sums = await Promise.all(this.#layers.map((each) => this.#device.readback.read(each)));
    sums.forEach((bytes, layer) => {
      const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
      for (let head = 0; head < heads; head++) {
        const from = head * (headDim + 1) * headDim;
        const row = layer * heads + head;
        const sum = values.subarray(from + headDim * headDim, from + (headDim + 1) * headDim);
        for (let i = 0; i < headDim; i++) {
          const meanI = (sum[i] ?? NaN) / count;
          mean[row * headDim + i] = meanI;
          for (let j = 0; j < headDim; j++) {
            const product = (values[from + i * headDim + j] ?? NaN) / count;
            covariance[(row * headDim + i) * headDim + j] =
              product - meanI * ((sum[j] ?? NaN) / count);
          }
        }
      }
    });
    return { heads, mean, covariance };
  }

  /** Gives all memory back; idempotent. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const sums of this.#layers.splice(0)) this.#memory.free(sums);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

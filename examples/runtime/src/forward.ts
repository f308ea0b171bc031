/**
 * The forward pass of a Llama or Mixtral decoder over a paged KV cache.
 *
 * A step takes new tokens of any number of sequences, one row each. It writes its host-side inputs
 * (ids, rotations, slots, block tables) into fixed buffers and records its dispatches into a batch;
 * it reads nothing back and creates nothing after the first of its kind. Only attention tells rows
 * apart by sequence: those with one new token go through the decode attention together, each of the
 * others through the prefill attention; all see the same cache, and what the step itself writes.
 *
 * ```
 * ids -> embedding -> [ norm -> qkv -> rope -> write K/V -> attention -> +residual
 *                       norm -> gate, up -> silu * -> down -> +residual ] x layers -> norm -> head
 * ```
 */
import { type Batch, fail, type Tensor, type VramDevice, writeRange } from '@vramkit/core';
import { gatherRows, matmul, type ExpertCache } from '@vramkit/packer';
import type { PagedKvCache } from '@vramkit/paged-attention';
import { fetchAhead, readAheadTarget, readChoices } from './experts/read-ahead.js';
import {
  recordExperts,
  recordExpertSum,
  recordNextRouting,
  recordRouting,
  recordSilu,
  type ExpertLayer,
} from './experts/expert-layer.js';
import { argmaxKernel } from './kernels/argmax.wgsl.js';
import { rmsNormKernel } from './kernels/rms-norm.wgsl.js';
import { inverseFrequencies, writeRotations } from './kernels/rope.cpu.js';
import { ropeKernel } from './kernels/rope.wgsl.js';
import { tokenLossKernel } from './kernels/token-loss.wgsl.js';
import { decodingCount, type StepInput, type StepSequence } from './step-input.js';
import { hasCachedExperts } from './weights.js';
import type {
  DenseFeedForward,
  ExpertFeedForward,
  LanguageModel,
  LayerWeights,
  StackedMatrix,
} from './weights.js';
import { queryKeyValueWidth, Workspace, type WorkspaceSizes } from './workspace.js';

const LANES = 64;

/** Runs steps of one model over one cache; owns the activations. */
export class ForwardPass {
  readonly workspace: Workspace;
  readonly #device: VramDevice;
  readonly #model: LanguageModel;
  readonly #cache: PagedKvCache;
  readonly #frequencies: Float64Array;
  readonly #rotations: Float32Array;
  /** Experts that are being read ahead; never rejects. */
  #ahead = Promise.resolve();

  constructor(
    device: VramDevice,
    model: LanguageModel,
    cache: PagedKvCache,
    sizes: WorkspaceSizes,
  ) {
    this.#device = device;
    this.#model = model;
    this.#cache = cache;
    const { headDim, ropeTheta, ropeScaling } = model.config;
    this.#frequencies = inverseFrequencies(headDim, ropeTheta, ropeScaling);
    this.#rotations = new Float32Array(sizes.maxTokens * headDim);
    this.workspace = new Workspace(device, model.config, sizes);
  }

  /**
   * Records a step: all layers, K and V written, the residual stream of each token left in place.
   * @throws VramError `unsupported` where layers are streamed or experts cached; see
   * {@link ForwardPass.run}.
   */
  step(batch: Batch, input: StepInput): void {
    const { layers } = this.#model;
    if (this.#waits()) {
      fail('unsupported', 'a step that streams layers or caches experts has to wait for them');
    }
    this.#begin(batch, input);
    layers.forEach((layer, index) => this.#layer(batch, layer, index, input));
  }

  /**
   * Records a step as `step()` does. Where layers are streamed or experts cached, parts of the
   * batch are submitted on the way, and the promise resolves when the last part is recorded; no
   * other step may be recorded until then. It rejects with what reading weights throws; the step is
   * incomplete then.
   */
  run(batch: Batch, input: StepInput): Promise<void> | undefined {
    if (this.#waits()) return this.#runInParts(batch, input);
    this.step(batch, input);
    return undefined;
  }

  #waits(): boolean {
    return this.#model.stream !== undefined || hasCachedExperts(this.#model);
  }

  async #runInParts(batch: Batch, input: StepInput): Promise<void> {
    this.#begin(batch, input);
    try {
      for (const [index, layer] of this.#model.layers.entries()) {
        await this.#layerInParts(batch, layer, index, input);
      }
    } finally {
      // After a failure too: the caller may free what is being filled.
      await this.#ahead;
    }
  }

  async #layerInParts(
    batch: Batch,
    layer: LayerWeights,
    index: number,
    input: StepInput,
  ): Promise<void> {
    const { stream } = this.#model;
    const { feedForward } = layer;
    if (stream?.has(index) === true) {
      batch.submit();
      this.#layer(batch, await stream.take(index), index, input);
      batch.submit();
      stream.advance(index);
    } else if (feedForward.type === 'experts' && feedForward.cache !== undefined) {
      await this.#cachedLayer(batch, layer, index, input, feedForward, feedForward.cache);
    } else this.#layer(batch, layer, index, input);
  }

  /** A layer whose chosen experts are brought in before their products are submitted. */
  async #cachedLayer(
    batch: Batch,
    layer: LayerWeights,
    index: number,
    input: StepInput,
    weights: ExpertFeedForward,
    cache: ExpertCache,
  ): Promise<void> {
    const tokens = input.positions.length;
    this.#attention(batch, layer, index, input, tokens);
    this.#norm(batch, layer.feedForwardNorm, { rows: tokens, firstRow: 0 });
    const experts = this.#expertLayer(weights, tokens);
    recordRouting(batch, experts);
    const next = readAheadTarget(this.#model.layers[index + 1]);
    if (next !== undefined) recordNextRouting(batch, experts, next);
    batch.submit();
    const { chosen, guess } = await readChoices(experts, next !== undefined);
    for await (const _ of cache.rounds(chosen)) {
      recordExperts(batch, experts);
      batch.submit();
    }
    recordExpertSum(batch, experts);
    // It reads while the device computes; the next layer's rounds wait for it.
    if (next !== undefined) this.#ahead = fetchAhead(next.cache, guess);
  }

  #expertLayer(weights: ExpertFeedForward, tokens: number): ExpertLayer {
    return { config: this.#model.config, workspace: this.workspace, weights, tokens };
  }

  #begin(batch: Batch, input: StepInput): void {
    const { workspace } = this;
    const count = input.positions.length;
    this.#writeInputs(input, count);
    const weights = this.#model.embedding;
    gatherRows(batch, { weights, ids: workspace.ids, count, y: workspace.residual });
  }

  #layer(batch: Batch, layer: LayerWeights, index: number, input: StepInput): void {
    const tokens = input.positions.length;
    const { feedForward } = layer;
    this.#attention(batch, layer, index, input, tokens);
    this.#norm(batch, layer.feedForwardNorm, { rows: tokens, firstRow: 0 });
    if (feedForward.type === 'dense') return this.#dense(batch, feedForward, tokens);
    const experts = this.#expertLayer(feedForward, tokens);
    recordRouting(batch, experts);
    recordExperts(batch, experts);
    recordExpertSum(batch, experts);
  }

  #writeInputs(input: StepInput, tokens: number): void {
    const { workspace } = this;
    const { headDim } = this.#model.config;
    if (input.ids !== 'device') writeRange(this.#device, workspace.ids, input.ids);
    writeRotations(input.positions, this.#frequencies, this.#rotations);
    const rotations = this.#rotations.subarray(0, tokens * headDim);
    writeRange(this.#device, workspace.rotations, rotations);
    writeRange(this.#device, workspace.slots, input.slots);
    input.sequences.forEach(({ blocks }, index) => {
      writeRange(this.#device, workspace.tableRow(index), blocks);
    });
    const decoding = decodingCount(input);
    if (decoding === 0) return;
    const lengths = input.sequences
      .slice(0, decoding)
      .map(({ contextLength }) => contextLength + 1);
    writeRange(this.#device, workspace.lengths, Uint32Array.from(lengths));
  }

  #attention(
    batch: Batch,
    layer: LayerWeights,
    index: number,
    input: StepInput,
    tokens: number,
  ): void {
    const { workspace } = this;
    const { config } = this.#model;
    const { heads, kvHeads, headDim } = config;
    const rowStride = queryKeyValueWidth(config);
    const part = (offset: number) => ({ range: workspace.queryKeyValue, rowStride, offset });
    this.#norm(batch, layer.attentionNorm, { rows: tokens, firstRow: 0 });
    this.#project(batch, layer.queryKeyValue, workspace.normed, tokens, workspace.queryKeyValue);
    let row = 0;
    for (const { tokens: count, measures } of input.sequences) {
      measures?.addQueries(batch, index, part(row * rowStride));
      row += count;
    }
    batch.dispatch(ropeKernel, {
      params: { style: config.ropeStyle },
      bindings: { rotations: workspace.rotations, rows: workspace.queryKeyValue },
      uniforms: { tokens, heads: heads + kvHeads, headDim, rowStride },
      workgroups: Math.ceil((tokens * (heads + kvHeads) * headDim) / 2 / LANES),
    });
    this.#cache.writeKv(batch, {
      layer: index,
      keys: part(heads * headDim),
      values: part((heads + kvHeads) * headDim),
      slots: workspace.slots,
      tokens,
    });
    this.#attend(batch, index, input);
    input.observe?.(batch, index);
    matmul(batch, {
      x: workspace.attention,
      xRows: tokens,
      weights: layer.attentionOutput,
      y: workspace.residual,
      accumulate: true,
    });
  }

  #attend(batch: Batch, layer: number, input: StepInput): void {
    const { workspace } = this;
    const { heads, headDim } = this.#model.config;
    const width = queryKeyValueWidth(this.#model.config);
    // Rows of one sequence from `row` on.
    const rows = (row: number) => ({
      queries: { range: workspace.queryKeyValue, rowStride: width, offset: row * width },
      output: {
        range: workspace.attention,
        rowStride: heads * headDim,
        offset: row * heads * headDim,
      },
    });
    const decoding = decodingCount(input);
    if (decoding > 0) {
      this.#cache.decodeAttention(batch, {
        layer,
        heads,
        ...rows(0),
        blockTables: workspace.blockTables,
        tableStride: workspace.tableStride,
        lengths: workspace.lengths,
        sequences: decoding,
        maxLength: input.sequences
          .slice(0, decoding)
          .reduce((most, { contextLength }) => Math.max(most, contextLength + 1), 0),
        received: input.sequences
          .slice(0, decoding)
          .flatMap(({ measures, contextLength }, sequence) =>
            (measures?.received(layer) ?? []).map(({ sums }) => ({
              sums,
              sequence,
              length: contextLength + 1,
            })),
          ),
      });
    }
    let row = decoding;
    for (let index = decoding; index < input.sequences.length; index++) {
      // The loop's bound says that it exists; the type cannot.
      const { tokens, contextLength, measures } = input.sequences[index] as StepSequence;
      this.#cache.prefillAttention(batch, {
        layer,
        heads,
        ...rows(row),
        blockTable: workspace.tableRow(index),
        tokens,
        contextLength,
        received: measures?.received(layer) ?? [],
      });
      row += tokens;
    }
  }

  #norm(
    batch: Batch,
    weight: Tensor,
    part: { readonly rows: number; readonly firstRow: number },
  ): void {
    const { residual, normed } = this.workspace;
    batch.dispatch(rmsNormKernel, {
      params: {},
      bindings: { x: residual, weight, y: normed },
      uniforms: {
        ...part,
        columns: this.#model.config.hiddenSize,
        epsilon: this.#model.config.rmsNormEpsilon,
      },
      workgroups: part.rows,
    });
  }

  #project(batch: Batch, weights: StackedMatrix, x: Tensor, xRows: number, y: Tensor): void {
    for (const { matrix, offset } of weights.parts) {
      matmul(batch, { x, xRows, weights: matrix, y, yStride: weights.rows, yOffset: offset });
    }
  }

  #dense(batch: Batch, weights: DenseFeedForward, tokens: number): void {
    const { workspace } = this;
    this.#project(batch, weights.gateUp, workspace.normed, tokens, workspace.gateUp);
    recordSilu(batch, workspace, tokens, this.#model.config.intermediateSize);
    matmul(batch, {
      x: workspace.activation,
      xRows: tokens,
      weights: weights.down,
      y: workspace.residual,
      accumulate: true,
    });
  }

  /**
   * Records the logits of rows [firstRow, firstRow + rows) of the last step into rows from `into`
   * on; at most maxLogitRows in all.
   */
  logits(batch: Batch, firstRow: number, rows: number, into = 0): void {
    this.#norm(batch, this.#model.finalNorm, { rows, firstRow });
    matmul(batch, {
      x: this.workspace.normed,
      xRows: rows,
      weights: this.#model.head,
      y: this.workspace.logits,
      yOffset: into * this.#model.config.vocabularySize,
    });
  }

  /** Records argmax of the first rows of logits into the first input ids, for the next step. */
  argmax(batch: Batch, rows = 1): void {
    batch.dispatch(argmaxKernel, {
      params: {},
      bindings: { logits: this.workspace.logits, ids: this.workspace.ids },
      uniforms: { rows, columns: this.#model.config.vocabularySize },
      workgroups: rows,
    });
  }

  /** Records the losses of the first rows of logits against `targets`. */
  losses(batch: Batch, targets: Uint32Array): void {
    const { workspace } = this;
    writeRange(this.#device, workspace.targets, targets);
    batch.dispatch(tokenLossKernel, {
      params: {},
      bindings: {
        logits: workspace.logits,
        targets: workspace.targets,
        losses: workspace.losses,
      },
      uniforms: { rows: targets.length, columns: this.#model.config.vocabularySize },
      workgroups: targets.length,
    });
  }

  /** Frees the activations; idempotent. */
  dispose(): void {
    this.workspace.dispose();
  }
}

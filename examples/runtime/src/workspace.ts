/**
 * Activations of a forward pass: allocated once for the largest step, so that a step allocates
 * nothing.
 *
 * Rows are tokens. With experts, the feed-forward buffers hold one row per token and chosen expert.
 */
import {
  createTensor,
  subrange,
  type BufferRange,
  type DType,
  type Tensor,
  type VramDevice,
} from '@vramkit/core';
import type { ModelConfig } from './model-file.js';

/** Largest step that a workspace serves. */
export interface WorkspaceSizes {
  /** Tokens of one step. */
  readonly maxTokens: number;
  /** Rows of logits computed at once. */
  readonly maxLogitRows: number;
  /** Entries of a block table. */
  readonly maxBlocks: number;
  /** Sequences of one step. */
  readonly maxSequences: number;
}

/** Entries of 256 bytes, the largest alignment that a device asks of a binding. */
const TABLE_ALIGNMENT = 64;

/** Width of the fused query, key and value row, elements. */
export function queryKeyValueWidth(config: ModelConfig): number {
  return (config.heads + 2 * config.kvHeads) * config.headDim;
}

/** The buffers; `dispose()` frees all. */
export class Workspace {
  readonly sizes: WorkspaceSizes;
  /** [maxTokens] u32: input token ids; argmax writes the next one here. */
  readonly ids: Tensor;
  /** [maxTokens, hidden]: the residual stream. */
  readonly residual: Tensor;
  /** [maxTokens, hidden]. */
  readonly normed: Tensor;
  /** [maxTokens, (heads + 2 * kvHeads) * headDim]. */
  readonly queryKeyValue: Tensor;
  /** [maxTokens, heads * headDim]. */
  readonly attention: Tensor;
  /** [maxTokens * chosen, 2 * intermediate]. */
  readonly gateUp: Tensor;
  /** [maxTokens * chosen, intermediate]. */
  readonly activation: Tensor;
  /** [maxTokens, headDim / 2, 2]: cosine and sine of each position. */
  readonly rotations: Tensor;
  /** [maxTokens] u32: where K and V go. */
  readonly slots: Tensor;
  /** [maxSequences, tableStride] u32. */
  readonly blockTables: Tensor;
  /** Entries from one block table to the next: each can be bound by itself. */
  readonly tableStride: number;
  /** [maxSequences] u32: cached tokens. */
  readonly lengths: Tensor;
  /** [maxLogitRows, vocabulary]. */
  readonly logits: Tensor;
  /** [maxLogitRows] u32. */
  readonly targets: Tensor;
  /** [maxLogitRows]. */
  readonly losses: Tensor;
  /** Buffers of mixture-of-experts layers, where the model has them. */
  readonly experts: ExpertBuffers | undefined;
  readonly #tensors: Tensor[] = [];

  constructor(device: VramDevice, config: ModelConfig, sizes: WorkspaceSizes) {
    this.sizes = sizes;
    const make = (label: string, dtype: DType, ...shape: number[]): Tensor => {
      const tensor = createTensor(device, { dtype, shape, kind: 'activations', label });
      this.#tensors.push(tensor);
      return tensor;
    };
    const { maxTokens, maxLogitRows, maxBlocks, maxSequences } = sizes;
    this.tableStride = Math.ceil(maxBlocks / TABLE_ALIGNMENT) * TABLE_ALIGNMENT;
    const { hiddenSize, intermediateSize, headDim } = config;
    const rows = maxTokens * Math.max(1, config.expertsPerToken);
    try {
      this.ids = make('token ids', 'u32', maxTokens);
      this.residual = make('residual', 'f32', maxTokens, hiddenSize);
      this.normed = make('normed', 'f32', maxTokens, hiddenSize);
      this.queryKeyValue = make('qkv', 'f32', maxTokens, queryKeyValueWidth(config));
      this.attention = make('attention', 'f32', maxTokens, config.heads * headDim);
      this.gateUp = make('gate and up', 'f32', rows, 2 * intermediateSize);
      this.activation = make('activation', 'f32', rows, intermediateSize);
      this.rotations = make('rotations', 'f32', maxTokens, headDim / 2, 2);
      this.slots = make('slots', 'u32', maxTokens);
      this.blockTables = make('block tables', 'u32', maxSequences, this.tableStride);
      this.lengths = make('lengths', 'u32', maxSequences);
      this.logits = make('logits', 'f32', maxLogitRows, config.vocabularySize);
      this.targets = make('targets', 'u32', maxLogitRows);
      this.losses = make('losses', 'f32', maxLogitRows);
      this.experts = config.experts === 0 ? undefined : expertBuffers(make, config, maxTokens);
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** The block table of the step's sequence `index`. */
  tableRow(index: number): BufferRange {
    const bytes = this.tableStride * 4;
    return subrange(this.blockTables, index * bytes, bytes);
  }

  /** Frees all buffers; idempotent. */
  dispose(): void {
    for (const tensor of this.#tensors) tensor.dispose();
  }
}

/** Buffers of a mixture-of-experts layer. */
export interface ExpertBuffers {
  /** [maxTokens, experts]. */
  readonly routerLogits: Tensor;
  /** The four below, one after the other: one readback gives them all. */
  readonly choices: Tensor;
  /** Elements of `choices` from one of them to the next. */
  readonly choiceStride: number;
  /** [maxTokens, chosen] u32. */
  readonly ids: Tensor;
  /** [maxTokens, chosen] f32. */
  readonly weights: BufferRange;
  /** What the next layer's router is likely to choose, as `ids`. */
  readonly nextIds: BufferRange;
  /** As `weights`. */
  readonly nextWeights: BufferRange;
  /** [maxTokens, chosen, hidden]. */
  readonly outputs: Tensor;
}

function expertBuffers(
  make: (label: string, dtype: DType, ...shape: number[]) => Tensor,
  { experts, expertsPerToken, hiddenSize }: ModelConfig,
  maxTokens: number,
): ExpertBuffers {
  const rows = maxTokens * expertsPerToken;
  const choiceStride = Math.ceil(rows / TABLE_ALIGNMENT) * TABLE_ALIGNMENT;
  const choices = make('expert choices', 'u32', 4 * choiceStride);
  const part = (index: number): Tensor => choices.slice(index * choiceStride, rows);
  // Of another type than the whole.
  const shares = (index: number): BufferRange =>
    subrange(choices, 4 * index * choiceStride, 4 * rows);
  return {
    routerLogits: make('router logits', 'f32', maxTokens, experts),
    choices,
    choiceStride,
    ids: part(0),
    weights: shares(1),
    nextIds: part(2),
    nextWeights: shares(3),
    outputs: make('expert outputs', 'f32', rows, hiddenSize),
  };
}

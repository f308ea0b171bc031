/**
 * The weights of a Llama or Mixtral model on the device.
 *
 * Matrices that read the same input are stacked row-wise where their formats agree (query, key and
 * value; gate and up), so that one dispatch serves them; where they differ (a Q4_K_M file keeps
 * values in Q6_K) they stay apart and write into the same output rows. The experts of a layer are
 * one stacked matrix, indexed by expert id on the device.
 */
import type { Tensor } from '@vramkit/core';
import type { DeviceMatrix, ExpertArena, ExpertCache } from '@vramkit/packer';
import type { ModelConfig } from './model-file.js';

/** Matrices over one input, whose outputs lie side by side in one output row. */
export interface StackedMatrix {
  /** Width of the output row, elements. */
  readonly rows: number;
  /** Each part with its first output element. */
  readonly parts: readonly { readonly matrix: DeviceMatrix; readonly offset: number }[];
}

/** Feed-forward weights of a dense layer. */
export interface DenseFeedForward {
  readonly type: 'dense';
  /** Gate rows, then up rows: [2 * intermediate, hidden]. */
  readonly gateUp: StackedMatrix;
  /** [hidden, intermediate]. */
  readonly down: DeviceMatrix;
}

/** Feed-forward weights of a mixture-of-experts layer. */
export interface ExpertFeedForward {
  readonly type: 'experts';
  /** [experts, hidden]. */
  readonly router: DeviceMatrix;
  /** Gate and up rows of each expert: [experts * 2 * intermediate, hidden]. */
  readonly gateUp: ExpertMatrices;
  /** [experts * hidden, intermediate]. */
  readonly down: ExpertMatrices;
  /** Where only some experts are on the device: who brings the others. */
  readonly cache?: ExpertCache;
  /** Whether the cache brings what the router is likely to choose ahead of its layer. */
  readonly readsAhead?: boolean;
}

/** The experts of a layer: one matrix where all are stored alike, else slots of several widths. */
export type ExpertMatrices = DeviceMatrix | ExpertArena;

/** Weights of one layer. */
export interface LayerWeights {
  /** [hidden] f32. */
  readonly attentionNorm: Tensor;
  /** Query, key and value rows: [(heads + 2 * kvHeads) * headDim, hidden]. */
  readonly queryKeyValue: StackedMatrix;
  /** [hidden, heads * headDim]. */
  readonly attentionOutput: DeviceMatrix;
  /** [hidden] f32. */
  readonly feedForwardNorm: Tensor;
  readonly feedForward: DenseFeedForward | ExpertFeedForward;
}

/** Brings layers that are not resident to the device, in the order of the model. */
export interface LayerSource {
  /** Whether a layer of the model comes from here. */
  has(index: number): boolean;
  /**
   * Waits until work that is submitted next finds a layer in its place.
   * @throws VramError `device-lost`.
   */
  take(index: number): Promise<LayerWeights>;
  /** Says that the work of a layer is submitted; the layer after it begins to move. */
  advance(index: number): void;
}

/** A model on the device; whoever loaded it disposes it. */
export interface LanguageModel extends Disposable {
  readonly config: ModelConfig;
  /** [vocabulary, hidden]. */
  readonly embedding: DeviceMatrix;
  readonly layers: readonly LayerWeights[];
  /** Brings the layers that are not resident; absent where all are. */
  readonly stream?: LayerSource | undefined;
  /** [hidden] f32. */
  readonly finalNorm: Tensor;
  /** [vocabulary, hidden]; the embedding itself where the model ties them. */
  readonly head: DeviceMatrix;
  /** Frees all weights; idempotent. */
  dispose(): void;
}

/** Whether a step waits for experts that routers choose. */
export function hasCachedExperts({ layers }: LanguageModel): boolean {
  return layers.some(
    ({ feedForward }) => feedForward.type === 'experts' && feedForward.cache !== undefined,
  );
}

/**
 * The mixture of experts of one layer, as three recordings: which experts, their products, the sum;
 * and a fourth that guesses the next layer's.
 *
 * They are apart because a cache of experts acts between the first two. Rows are one per token and
 * chosen expert.
 */
import type { Batch, BufferRange, Tensor } from '@vramkit/core';
import {
  ExpertArena,
  indexedMatmul,
  matmul,
  type DeviceMatrix,
  type IndexedMatmulArguments,
} from '@vramkit/packer';
import { combineExpertsKernel } from '../kernels/combine-experts.wgsl.js';
import { rmsNormKernel } from '../kernels/rms-norm.wgsl.js';
import { routeExpertsKernel } from '../kernels/route-experts.wgsl.js';
import { siluMulKernel } from '../kernels/silu-mul.wgsl.js';
import type { ModelConfig } from '../model-file.js';
import type { ExpertFeedForward, ExpertMatrices } from '../weights.js';
import type { Workspace } from '../workspace.js';

const LANES = 64;

/** What the recordings work on. */
export interface ExpertLayer {
  readonly config: ModelConfig;
  readonly workspace: Workspace;
  readonly weights: ExpertFeedForward;
  /** Tokens of the step. */
  readonly tokens: number;
}

/** Records `activation = silu(gate) * up` of the first rows. */
export function recordSilu(
  batch: Batch,
  { gateUp, activation }: Workspace,
  rows: number,
  width: number,
): void {
  batch.dispatch(siluMulKernel, {
    params: {},
    bindings: { gateUp, y: activation },
    uniforms: { rows, width },
    workgroups: Math.ceil((rows * width) / 4 / LANES),
  });
}

/** Records the choice of experts: their ids and weights of each token. */
export function recordRouting(batch: Batch, layer: ExpertLayer): void {
  const { workspace, weights } = layer;
  const { experts } = workspace;
  if (experts === undefined) return;
  const { ids, weights: shares } = experts;
  recordChoice(batch, layer, { x: workspace.normed, router: weights.router, ids, shares });
}

/**
 * Records what the next layer's router would choose if it saw this layer's input: the residual
 * stream changes little from layer to layer, so most of it is what it will choose. Comes behind
 * {@link recordRouting} and before {@link recordExperts}, whose results overwrite its scratch.
 * Source: Eliseev and Mazur, 2023 (arXiv 2312.17238).
 */
export function recordNextRouting(
  batch: Batch,
  layer: ExpertLayer,
  next: { readonly router: DeviceMatrix; readonly norm: Tensor },
): void {
  const { config, workspace, tokens } = layer;
  const { experts, residual } = workspace;
  if (experts === undefined) return;
  const { nextIds: ids, nextWeights: shares, outputs: x } = experts;
  batch.dispatch(rmsNormKernel, {
    params: {},
    bindings: { x: residual, weight: next.norm, y: x },
    uniforms: {
      rows: tokens,
      firstRow: 0,
      columns: config.hiddenSize,
      epsilon: config.rmsNormEpsilon,
    },
    workgroups: tokens,
  });
  recordChoice(batch, layer, { x, router: next.router, ids, shares });
}

function recordChoice(
  batch: Batch,
  { config, workspace, tokens }: ExpertLayer,
  choice: {
    readonly x: Tensor;
    readonly router: DeviceMatrix;
    readonly ids: BufferRange;
    readonly shares: BufferRange;
  },
): void {
  const { experts, expertsPerToken: chosen } = config;
  const logits = workspace.experts?.routerLogits;
  if (logits === undefined) return;
  const { x, router: weights, ids, shares } = choice;
  matmul(batch, { x, xRows: tokens, weights, y: logits });
  batch.dispatch(routeExpertsKernel, {
    params: {},
    bindings: { logits, ids, weights: shares },
    uniforms: { tokens, experts, chosen },
    workgroups: Math.ceil(tokens / LANES),
  });
}

/** Records the product of each row with the expert that its id names. */
function multiplyExperts(
  batch: Batch,
  weights: ExpertMatrices,
  args: Omit<IndexedMatmulArguments, 'weights'>,
): void {
  if (weights instanceof ExpertArena) weights.multiply(batch, args);
  else indexedMatmul(batch, { ...args, weights });
}

/** Records the outputs of the chosen experts; rows of experts not on the device keep theirs. */
export function recordExperts(batch: Batch, layer: ExpertLayer): void {
  const { config, workspace, weights, tokens } = layer;
  const { expertsPerToken: chosen, intermediateSize, hiddenSize } = config;
  const buffers = workspace.experts;
  if (buffers === undefined) return;
  const rows = tokens * chosen;
  multiplyExperts(batch, weights.gateUp, {
    x: workspace.normed,
    xRows: rows,
    xRowDivisor: chosen,
    rowsPerExpert: 2 * intermediateSize,
    expertIds: buffers.ids,
    y: workspace.gateUp,
  });
  recordSilu(batch, workspace, rows, intermediateSize);
  multiplyExperts(batch, weights.down, {
    x: workspace.activation,
    xRows: rows,
    rowsPerExpert: hiddenSize,
    expertIds: buffers.ids,
    y: buffers.outputs,
  });
}

/** Records the weighted sum of the outputs onto the residual stream. */
export function recordExpertSum(batch: Batch, layer: ExpertLayer): void {
  const { config, workspace, tokens } = layer;
  const { expertsPerToken: chosen, hiddenSize: width } = config;
  const buffers = workspace.experts;
  if (buffers === undefined) return;
  batch.dispatch(combineExpertsKernel, {
    params: {},
    bindings: {
      outputs: buffers.outputs,
      weights: buffers.weights,
      residual: workspace.residual,
    },
    uniforms: { tokens, chosen, width },
    workgroups: Math.ceil((tokens * width) / 4 / LANES),
  });
}

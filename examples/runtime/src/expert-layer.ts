/**
 * The mixture of experts of one layer, as three recordings: which experts, their products, the sum.
 *
 * They are apart because a cache of experts acts between the first two. Rows are one per token and
 * chosen expert.
 */
import type { Batch } from '@vramkit/core';
import { ExpertArena, indexedMatmul, matmul, type IndexedMatmulArguments } from '@vramkit/packer';
import { combineExpertsKernel } from './kernels/combine-experts.wgsl.js';
import { routeExpertsKernel } from './kernels/route-experts.wgsl.js';
import { siluMulKernel } from './kernels/silu-mul.wgsl.js';
import type { ModelConfig } from './model-file.js';
import type { ExpertFeedForward, ExpertMatrices } from './weights.js';
import type { Workspace } from './workspace.js';

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
  const { config, workspace, weights, tokens } = layer;
  const { experts, expertsPerToken: chosen } = config;
  const buffers = workspace.experts;
  if (buffers === undefined) return;
  const { routerLogits: y } = buffers;
  matmul(batch, { x: workspace.normed, xRows: tokens, weights: weights.router, y });
  batch.dispatch(routeExpertsKernel, {
    params: {},
    bindings: { logits: buffers.routerLogits, ids: buffers.ids, weights: buffers.weights },
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

/** What routers chose, as requests to a cache; and what the next layer's is likely to choose. */
import { subrange, type Tensor } from '@vramkit/core';
import type { DeviceMatrix, ExpertCache, ExpertRequest } from '@vramkit/packer';
import type { LayerWeights } from '../weights.js';
import type { ExpertLayer } from './expert-layer.js';

/** A layer whose experts are brought ahead of it. */
export interface ReadAheadTarget {
  readonly router: DeviceMatrix;
  readonly norm: Tensor;
  readonly cache: ExpertCache;
}

/** The layer as a target, where its cache reads ahead. */
export function readAheadTarget(layer: LayerWeights | undefined): ReadAheadTarget | undefined {
  const feedForward = layer?.feedForward;
  if (layer === undefined || feedForward?.type !== 'experts') return undefined;
  const { cache, readsAhead, router } = feedForward;
  if (cache === undefined || readsAhead !== true) return undefined;
  return { router, norm: layer.feedForwardNorm, cache };
}

/**
 * The experts that the last routing chose, one for each row, and those that the guess named where
 * there was one; one readback for all.
 */
export async function readChoices(
  { config, workspace, tokens }: ExpertLayer,
  hasGuess: boolean,
): Promise<{ readonly chosen: ExpertRequest[]; readonly guess: ExpertRequest[] }> {
  const { experts } = workspace;
  if (experts === undefined) return { chosen: [], guess: [] };
  const { choices, choiceStride: stride } = experts;
  const bytes = subrange(choices, 0, (hasGuess ? 4 : 2) * stride * 4);
  const { buffer } = await choices.device.readback.read(bytes);
  const [ids, weights] = [new Uint32Array(buffer), new Float32Array(buffer)];
  const rows = tokens * config.expertsPerToken;
  const from = (part: number): ExpertRequest[] =>
    Array.from({ length: rows }, (_, row) => ({
      expert: ids[part * stride + row] ?? 0,
      weight: weights[(part + 1) * stride + row] ?? 0,
    }));
  return { chosen: from(0), guess: hasGuess ? from(2) : [] };
}

/**
 * Brings the experts of a guess, those of the largest weights first. Never rejects: an expert that
 * could not be read now is asked for again by the step that needs it, and fails there.
 */
export async function fetchAhead(
  cache: ExpertCache,
  guess: readonly ExpertRequest[],
): Promise<void> {
  const scores = new Float64Array(cache.experts);
  for (const { expert, weight = 1 } of guess) scores[expert] = (scores[expert] ?? 0) + weight;
  const count = scores.filter((score) => score > 0).length;
  await cache.prefetch(scores, count).catch(() => undefined);
}

/**
 * What the numbers that policies without attention rank by have to do with attention, layer by
 * layer: the rank correlation of each with the attention that the tokens really received, and how
 * much say each layer has in the mean over layers.
 *
 * A number that is a good guess correlates near 1; one that drops what is read is below 0. Pure.
 */
import type { LayerAttention } from './attention-error.js';

/** What tokens can be ranked by. */
export const STATISTICS = ['inverseKeyNorm', 'valueNorm', 'valueOverKeyNorm', 'position'] as const;
type Statistic = (typeof STATISTICS)[number];

/** Figures of a document, [layers] each. */
export interface ScoreMeaning {
  /** Rank correlation with received attention, mean over KV heads. */
  readonly correlations: Readonly<Record<Statistic, readonly number[]>>;
  /** Share of each layer in the variance over tokens of value norm over key norm. */
  readonly say: readonly number[];
}

/** Ranks, ascending, ties in order of index. */
function ranks(values: readonly number[]): Float64Array {
  const order = values.map((_, i) => i).sort((a, b) => (values[a] ?? 0) - (values[b] ?? 0));
  const result = new Float64Array(values.length);
  order.forEach((index, rank) => (result[index] = rank));
  return result;
}

/** Spearman's rank correlation. */
export function rankCorrelation(a: readonly number[], b: readonly number[]): number {
  const [left, right] = [ranks(a), ranks(b)];
  const count = a.length;
  const sum = left.reduce((total, rank, i) => total + (rank - (right[i] ?? 0)) ** 2, 0);
  return 1 - (6 * sum) / (count * (count * count - 1));
}

function norms(rows: Float32Array, layer: LayerAttention, kvHead: number): number[] {
  const { kvHeads, headDim, contextTokens } = layer;
  return Array.from({ length: contextTokens }, (_, token) => {
    const from = (token * kvHeads + kvHead) * headDim;
    return Math.hypot(...rows.subarray(from, from + headDim));
  });
}

/** Attention that each token of the context received from the query heads of a KV head. */
function received(layer: LayerAttention, kvHead: number): number[] {
  const { heads, kvHeads, queryCount, contextTokens, weights } = layer;
  const group = heads / kvHeads;
  const tokens = contextTokens + queryCount;
  return Array.from({ length: contextTokens }, (_, token) => {
    let sum = 0;
    for (let row = kvHead * group * queryCount; row < (kvHead + 1) * group * queryCount; row++) {
      sum += weights[row * tokens + token] ?? 0;
    }
    return sum;
  });
}

/** The figures of one document; `skipTokens` first tokens, which sinks make unlike all, aside. */
export function scoreMeaning(layers: readonly LayerAttention[], skipTokens: number): ScoreMeaning {
  const correlations: Record<Statistic, number[]> = {
    ...{ inverseKeyNorm: [], valueNorm: [], valueOverKeyNorm: [], position: [] },
  };
  const variances: number[] = [];
  for (const layer of layers) {
    const { kvHeads } = layer;
    const mean = new Float64Array(layer.contextTokens);
    const sums = new Map<Statistic, number>();
    for (let head = 0; head < kvHeads; head++) {
      const keyNorms = norms(layer.keys, layer, head);
      const valueNorms = norms(layer.values, layer, head);
      const ratio = valueNorms.map((norm, i) => norm / Math.max(1e-6, keyNorms[i] ?? 0));
      ratio.forEach((value, i) => (mean[i] = (mean[i] ?? 0) + value / kvHeads));
      const by: Record<Statistic, readonly number[]> = {
        inverseKeyNorm: keyNorms.map((norm) => -norm),
        valueNorm: valueNorms,
        valueOverKeyNorm: ratio,
        position: keyNorms.map((_, i) => i),
      };
      const attention = received(layer, head).slice(skipTokens);
      for (const name of STATISTICS) {
        const correlation = rankCorrelation(by[name].slice(skipTokens), attention);
        sums.set(name, (sums.get(name) ?? 0) + correlation / kvHeads);
      }
    }
    for (const name of STATISTICS) correlations[name].push(sums.get(name) ?? NaN);
    variances.push(variance(mean.subarray(skipTokens)));
  }
  const total = variances.reduce((sum, value) => sum + value, 0);
  return { correlations, say: variances.map((value) => value / total) };
}

function variance(values: Float64Array): number {
  const middle = values.reduce((sum, value) => sum + value, 0) / values.length;
  return values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / values.length;
}

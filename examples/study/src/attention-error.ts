/**
 * What eviction does to the output of attention, layer by layer and head by head.
 *
 * The queries are those of the text that follows, computed with the full cache; keys and values
 * are the full cache's too. So the figure is what dropping tokens does in one layer alone, without
 * what earlier layers have passed on:
 *
 * ```
 *   full       o  = sum over all cached tokens of w_i v_i,  w = softmax(q k / sqrt(headDim))
 *   survivors  o' = sum over survivors of w_i v_i / sum over survivors of w_i
 *   error      |o' - o| / |o|, mean over queries          kept mass   sum over survivors of w_i
 * ```
 *
 * A query also sees the new tokens up to itself, which no policy has dropped yet. Pure; f64.
 */

/** Rows of one layer. */
export interface LayerRows {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Rotated queries of the new tokens, [queries, heads, headDim]. */
  readonly queries: Float32Array;
  /** Keys of the context and of the new tokens, [tokens, kvHeads, headDim]. */
  readonly keys: Float32Array;
  /** Values, as `keys`. */
  readonly values: Float32Array;
}

/** Attention of one layer over everything, kept for any number of sets of survivors. */
export interface LayerAttention extends LayerRows {
  readonly queryCount: number;
  readonly contextTokens: number;
  /** Softmax weights, [heads, queries, tokens]; 0 for tokens that a query does not see. */
  readonly weights: Float32Array;
}

/** Figures of one layer, per query head. */
export interface HeadErrors {
  /** Relative error of the output, mean over queries, [heads]. */
  readonly error: readonly number[];
  /** Share of the attention weight on what stayed, mean over queries, [heads]. */
  readonly keptMass: readonly number[];
}

/** Weights of all queries over all tokens. */
export function attendAll(rows: LayerRows): LayerAttention {
  const { heads, kvHeads, headDim, queries, keys } = rows;
  const queryCount = queries.length / heads / headDim;
  const tokens = keys.length / kvHeads / headDim;
  const contextTokens = tokens - queryCount;
  const weights = new Float32Array(heads * queryCount * tokens);
  const logits = new Float64Array(tokens);
  for (let head = 0; head < heads; head++) {
    const kvHead = Math.floor((head * kvHeads) / heads);
    for (let query = 0; query < queryCount; query++) {
      const seen = contextTokens + query + 1;
      const q = (query * heads + head) * headDim;
      let most = -Infinity;
      for (let token = 0; token < seen; token++) {
        const k = (token * kvHeads + kvHead) * headDim;
        let dot = 0;
        for (let d = 0; d < headDim; d++) dot += (queries[q + d] ?? 0) * (keys[k + d] ?? 0);
        logits[token] = dot / Math.sqrt(headDim);
        most = Math.max(most, logits[token] ?? 0);
      }
      let sum = 0;
      for (let token = 0; token < seen; token++) sum += Math.exp((logits[token] ?? 0) - most);
      const row = (head * queryCount + query) * tokens;
      for (let token = 0; token < seen; token++) {
        weights[row + token] = Math.exp((logits[token] ?? 0) - most) / sum;
      }
    }
  }
  return { ...rows, queryCount, contextTokens, weights };
}

/** Errors where of the context only the tokens at `survivors` are left. */
export function survivorErrors(all: LayerAttention, survivors: ArrayLike<number>): HeadErrors {
  const { heads, kvHeads, headDim, values, queryCount, contextTokens, weights } = all;
  const tokens = contextTokens + queryCount;
  const isLeft = new Uint8Array(tokens).fill(1, contextTokens);
  for (let i = 0; i < survivors.length; i++) isLeft[survivors[i] ?? 0] = 1;
  const errors: number[] = [];
  const masses: number[] = [];
  for (let head = 0; head < heads; head++) {
    const kvHead = Math.floor((head * kvHeads) / heads);
    let error = 0;
    let mass = 0;
    for (let query = 0; query < queryCount; query++) {
      const row = (head * queryCount + query) * tokens;
      const full = new Float64Array(headDim);
      const kept = new Float64Array(headDim);
      let left = 0;
      for (let token = 0; token <= contextTokens + query; token++) {
        const weight = weights[row + token] ?? 0;
        const v = (token * kvHeads + kvHead) * headDim;
        const share = isLeft[token] === 1 ? weight : 0;
        left += share;
        for (let d = 0; d < headDim; d++) {
          const value = values[v + d] ?? 0;
          full[d] = (full[d] ?? 0) + weight * value;
          kept[d] = (kept[d] ?? 0) + share * value;
        }
      }
      error += distance(kept, full, left) / (Math.hypot(...full) || 1);
      mass += left;
    }
    errors.push(error / queryCount);
    masses.push(mass / queryCount);
  }
  return { error: errors, keptMass: masses };
}

/** |kept / left - full|. */
function distance(kept: Float64Array, full: Float64Array, left: number): number {
  return Math.hypot(...full.map((value, d) => (kept[d] ?? 0) / left - value));
}

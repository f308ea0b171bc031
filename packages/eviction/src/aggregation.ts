/**
 * Aggregations: from one score per token, layer and KV head to one per token.
 *
 * All layers that share a block table keep the same tokens, and a block holds all KV heads of a
 * token, so one order of tokens has to serve them all.
 */
import type { KvTokens } from './needs.js';

/**
 * The mean over layers of the mean over KV heads, in float64: every head of every layer has the
 * same say. A layer with scores of larger magnitude weighs more.
 */
export function meanOverLayersAndHeads(scores: Float64Array, tokens: KvTokens): Float64Array {
  const { tokenCount, layers, kvHeads } = tokens;
  const out = new Float64Array(tokenCount);
  for (let token = 0; token < tokenCount; token++) {
    let total = 0;
    for (let layer = 0; layer < layers; layer++) {
      const row = (token * layers + layer) * kvHeads;
      let sum = 0;
      for (let head = 0; head < kvHeads; head++) sum += scores[row + head] ?? NaN;
      total += sum / kvHeads;
    }
    out[token] = total / layers;
  }
  return out;
}

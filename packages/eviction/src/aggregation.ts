/**
 * Aggregations: from one score per token, layer and KV head to one per token.
 *
 * All layers that share a block table keep the same tokens, and a block holds all KV heads of a
 * token, so one order of tokens has to serve them all.
 */
import { assertArgument } from '@vramkit/core';
import type { KvTokens } from './needs.js';
import type { KvAggregation } from './policy.js';

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

/**
 * Budgets per layer on one block table: each head of a layer votes for as many tokens as its layer
 * may keep, those that it scores highest, and a token scores by its votes. Equal votes are ordered
 * by the mean score. Scores of different magnitude weigh the same. Complexity: a sort of all tokens
 * per layer and head.
 *
 * @param budgetsOf Tokens that each layer may keep, shape `[layers]`.
 * @returns An aggregation that throws `invalid-argument` where the number of budgets is not that of
 *   the layers.
 */
export function votesWithinBudgets(
  budgetsOf: (tokens: KvTokens) => readonly number[],
): KvAggregation {
  return (scores, tokens) => {
    const { tokenCount, layers, kvHeads } = tokens;
    const budgets = budgetsOf(tokens);
    assertArgument(budgets.length === layers, `${budgets.length} budgets for ${layers} layers`);
    // Less than half a vote either way, so that a mean never outweighs a vote.
    const votes = meanOverLayersAndHeads(scores, tokens).map(
      (mean) => (0.499 * mean) / (1 + Math.abs(mean)),
    );
    const width = layers * kvHeads;
    const order = Uint32Array.from({ length: tokenCount }, (_, token) => token);
    for (let row = 0; row < width; row++) {
      const scoreOf = (token: number): number => scores[token * width + row] ?? NaN;
      order.sort((a, b) => scoreOf(b) - scoreOf(a) || b - a);
      const budget = budgets[Math.floor(row / kvHeads)] ?? 0;
      for (const token of order.subarray(0, budget)) votes[token] = (votes[token] ?? 0) + 1;
    }
    return votes;
  };
}

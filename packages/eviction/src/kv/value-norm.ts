/**
 * Value norm: keep the tokens whose values are long.
 *
 * A value of small norm changes what is read by little, whatever attention it gets. This is half of
 * PagedEviction's ratio, and what the code published beside that paper scores by.
 *
 * Heads and layers: a token's score is the mean over layers of the mean over KV heads, as one block
 * table for all of them needs one order.
 *
 * Differences: no paper proposes it alone; protected ends and whole blocks at decode are ours.
 *
 * What it gets wrong: sinks. Their values are close to zero and their attention is high; without
 * the protected first block they are the first to go.
 *
 * Source: one of the scores compared in "PagedEviction" (arXiv 2509.04377); the norm as a weight of
 * attention is from Guo, Kamigaito, Watanabe, "Attention Score is not All You Need for Token
 * Importance Indicator in KV Cache Reduction" (arXiv 2406.12335, EMNLP 2024).
 */
import type { KvPolicy, KvScore } from '../policy.js';
import { scored, type ScoredOptions } from '../scored.js';
import { statistic } from '../tokens.js';

const longValues: KvScore = {
  needs: ['valueNorm'],
  attentionQueries: 0,
  blockScore: 'when-filled',
  blockMean: { statistic: 'valueNorm', factor: 1, epsilon: 0 },
  score(tokens, out) {
    out.set(statistic(tokens, 'valueNorm'));
  },
};

/**
 * Keeps long values.
 * @throws VramError `invalid-argument` as {@link scored}.
 */
export function valueNorm(options: ScoredOptions): KvPolicy {
  return scored('valueNorm', longValues, options);
}

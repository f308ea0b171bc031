/**
 * Inverse key norm: keep the tokens whose keys are short.
 *
 * In trained decoders a key of small Euclidean norm tends to receive much attention, so
 * `-||K||` stands in for attention without any query.
 *
 * Heads and layers: a token's score is the mean over layers of the mean over KV heads. The paper
 * chooses per head, which one block table for all heads does not allow.
 *
 * Where this differs from the paper: whole blocks of lowest mean go at decode; the first and the
 * newest block are protected by default; every layer is compressed, while the paper leaves the
 * first two alone (give an aggregation that ignores them to do the same).
 *
 * What it gets wrong: the relation is an average over heads; in some heads, and in the first
 * layers, it does not hold.
 *
 * Source: Devoto, Zhao, Scardapane, Minervini, "A Simple and Effective L2 Norm-Based Strategy for
 * KV Cache Compression" (arXiv 2406.11430, EMNLP 2024).
 */
import type { KvPolicy, KvScore } from '../policy.js';
import { scored, type ScoredOptions } from '../scored.js';
import { statistic } from '../tokens.js';

const shortKeys: KvScore = {
  needs: ['keyNorm'],
  attentionQueries: 0,
  blockScore: 'when-filled',
  blockMean: { statistic: 'keyNorm', factor: -1, epsilon: 0 },
  score(tokens, out) {
    const keyNorm = statistic(tokens, 'keyNorm');
    for (let row = 0; row < out.length; row++) out[row] = -(keyNorm[row] ?? NaN);
  },
};

/**
 * Keeps short keys.
 * @throws VramError `invalid-argument` as {@link scored}.
 */
export function inverseKeyNorm(options: ScoredOptions): KvPolicy {
  return scored('inverseKeyNorm', shortKeys, options);
}

/**
 * KeyDiff: keep the tokens whose keys point elsewhere than the others.
 *
 * With `a` the mean of the unit keys of a head, the score is `-cos(K_i, a)`. Keys far from the mean
 * direction tend to receive attention, and a set of unlike keys covers more of what may be asked.
 * No query is needed. The length of `a` cancels, so the cache measures against a plain sum.
 *
 * Heads and layers: a token's score is the mean over layers of the mean over KV heads. The paper
 * chooses per head, which one block table for all heads does not allow.
 *
 * Where this differs from the paper: the prompt is compressed at once, against the mean of all of
 * it, where the paper goes through it in blocks to bound memory; at decode the block of lowest mean
 * goes; ends are protected by default. A zero key, which has no direction, has similarity 0.
 *
 * What it gets wrong: unlike is not important. Noise and rare formatting are unlike too.
 *
 * Source: Park and others, "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM
 * Inference in Resource-Constrained Environments" (arXiv 2504.15364).
 */
import type { KvPolicy, KvScore } from '../policy.js';
import { scored, type ScoredOptions } from '../scored.js';
import { statistic } from '../tokens.js';

const unlikeKeys: KvScore = {
  needs: ['keySimilarity'],
  attentionQueries: 0,
  // The mean direction moves with every token that comes or goes.
  blockScore: 'when-triggered',
  blockMean: { statistic: 'keySimilarity', factor: -1, epsilon: 0 },
  score(tokens, out) {
    const similarity = statistic(tokens, 'keySimilarity');
    for (let row = 0; row < out.length; row++) out[row] = -(similarity[row] ?? NaN);
  },
};

/**
 * Keeps unlike keys.
 * @throws VramError `invalid-argument` as {@link scored}.
 */
export function keyDiff(options: ScoredOptions): KvPolicy {
  return scored('keyDiff', unlikeKeys, options);
}

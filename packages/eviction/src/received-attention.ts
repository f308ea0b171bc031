/** A score: the attention that each token received from the last queries, as it is. */
import type { KvScore } from './policy.js';
import { statistic } from './tokens.js';

/**
 * Scores a token by the attention that it received.
 * @param attentionQueries Last queries whose attention counts; `Infinity` for all.
 */
export function receivedAttention(attentionQueries: number): KvScore {
  return {
    needs: ['attention'],
    attentionQueries,
    blockScore: 'when-triggered',
    blockMean: { statistic: 'attention', factor: 1, epsilon: 0 },
    score(tokens, out) {
      out.set(statistic(tokens, 'attention'));
    },
  };
}

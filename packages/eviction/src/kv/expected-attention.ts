/**
 * ExpectedAttention: keep what queries that are still to come would attend to.
 *
 * With normally distributed queries of mean m and covariance S the expected attention logit has a
 * closed form; softmax over the tokens turns it into weights, and the value norm into influence:
 *
 * ```
 *   z_i = m . K_i / sqrt(d) + K_i . S K_i / (2 d)
 *   a   = softmax(z), averaged over the query heads of a KV head
 *   score_i = (a_i + epsilon) ||V_i||
 * ```
 *
 * The statistics are those of the prompt's queries before rotation, rotated by the mean rotation of
 * the next positions: {@link rotateQueries} makes them, `kv/expected-queries.ts` says why. The
 * first `sinkTokens` are left out of the softmax and get the highest score of their head; they
 * should be left out of the statistics too.
 *
 * Heads and layers: a token's score is the mean over layers of the mean over KV heads. The paper
 * chooses per head and pools the budget of the heads, which one block table does not allow.
 *
 * Where this differs from the paper: `||V||` instead of `||W_o V||`, as in the published library,
 * so that the cache alone suffices; at decode whole blocks of lowest mean go, by the statistics
 * that the cache last gave; ends are protected by default.
 *
 * What it gets wrong: queries are not normal, and a change of subject is not in the statistics.
 *
 * Cost: all keys are read, and headDim^2 operations per token and query head.
 *
 * Source: Devoto and others, "Expected Attention: KV Cache Compression by Estimating Attention from
 * Future Queries Distribution" (arXiv 2510.00636).
 */
import { assertArgument, checkInteger } from '@vramkit/core';
import type { KvQueries, KvTokens } from '../needs.js';
import type { KvPolicy, KvScore } from '../policy.js';
import { scored, type ScoredOptions } from '../scored.js';
import { addSoftmax } from '../softmax.js';
import { expectedQueries, statistic } from '../tokens.js';

/** Options of {@link expectedAttention}. */
export interface ExpectedAttentionOptions extends ScoredOptions {
  /** First tokens of the sequence that score highest, tokens. Default: 4. */
  readonly sinkTokens?: number;
  /** What is added to each weight; large values make it a policy of value norms. Default: 0. */
  readonly epsilon?: number;
}

/**
 * Expected attention times value norm.
 * @throws VramError `invalid-argument` where `sinkTokens` is no count or `epsilon` is negative.
 */
export function expectedInfluence(sinkTokens: number, epsilon: number): KvScore {
  checkInteger('sinkTokens', sinkTokens);
  assertArgument(
    epsilon >= 0 && Number.isFinite(epsilon),
    `epsilon must not be negative, got ${epsilon}`,
  );
  return {
    needs: ['keys', 'valueNorm', 'queries'],
    attentionQueries: 0,
    blockScore: 'when-triggered',
    blockMean: undefined,
    score(tokens, out) {
      const keys = statistic(tokens, 'keys');
      const valueNorm = statistic(tokens, 'valueNorm');
      if (tokens.tokenCount === 0) return;
      const queries = expectedQueries(tokens, keys.length / out.length);
      const sinks = tokens.positions.findIndex((position) => position >= sinkTokens);
      const first = sinks === -1 ? tokens.tokenCount : sinks;
      const width = tokens.layers * tokens.kvHeads;
      const group = queries.heads / tokens.kvHeads;
      for (let row = 0; row < width; row++) {
        const weights = new Float64Array(tokens.tokenCount - first);
        for (let head = row * group; head < (row + 1) * group; head++) {
          const logits = expectedLogits(tokens, keys, queries, { row, head, first });
          addSoftmax(weights, logits, 1 / group);
        }
        let highest = 0;
        for (let token = first; token < tokens.tokenCount; token++) {
          const index = token * width + row;
          const weight = (weights[token - first] ?? NaN) + epsilon;
          out[index] = weight * (valueNorm[index] ?? NaN);
          highest = Math.max(highest, out[index] ?? NaN);
        }
        for (let token = 0; token < first; token++) out[token * width + row] = highest;
      }
    },
  };
}

/**
 * Keeps what expected queries attend to.
 * @throws VramError `invalid-argument` as {@link scored} and {@link expectedInfluence}.
 */
export function expectedAttention(options: ExpectedAttentionOptions): KvPolicy {
  const { sinkTokens = 4, epsilon = 0 } = options;
  return scored('expectedAttention', expectedInfluence(sinkTokens, epsilon), options);
}

/** Logits of the tokens from `first` on, for query head `head`, counted over all layers. */
function expectedLogits(
  tokens: KvTokens,
  keys: Float32Array,
  queries: KvQueries,
  at: { readonly row: number; readonly head: number; readonly first: number },
): Float64Array {
  const { tokenCount, layers, kvHeads } = tokens;
  const width = layers * kvHeads;
  const headDim = keys.length / (tokenCount * width);
  const mean = queries.mean.subarray(at.head * headDim, (at.head + 1) * headDim);
  const square = headDim * headDim;
  const covariance = queries.covariance.subarray(at.head * square, (at.head + 1) * square);
  const logits = new Float64Array(tokenCount - at.first);
  for (let token = at.first; token < tokenCount; token++) {
    const from = (token * width + at.row) * headDim;
    let linear = 0;
    let quadratic = 0;
    for (let i = 0; i < headDim; i++) {
      const key = keys[from + i] ?? NaN;
      let product = 0;
      for (let j = 0; j < headDim; j++) {
        product += (covariance[i * headDim + j] ?? NaN) * (keys[from + j] ?? NaN);
      }
      linear += (mean[i] ?? NaN) * key;
      quadratic += key * product;
    }
    logits[token - at.first] = linear / Math.sqrt(headDim) + quadratic / (2 * headDim);
  }
  return logits;
}

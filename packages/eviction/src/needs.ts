/**
 * What a cache measures for KV policies.
 *
 * Most needs are one number per token, layer and KV head, shape `[tokens, layers, kvHeads]`, and
 * so cheap to read back. Where the numbers are on a GPU:
 *
 * ```
 *   keyNorm, valueNorm   written together with K and V
 *   keySimilarity        one running sum of unit keys per layer and head, then a dot product
 *   attention            added up by the attention kernels; a window of n queries needs
 *                        ceil(n / blockSize) sums, since decisions fall where a block fills
 *   queries              sums of q and of its outer product over the prompt
 *   keys, values         read back whole: for policies that nothing smaller serves
 * ```
 *
 * Scores that are the mean of one of these over a block ({@link KvBlockMean}) need not leave the
 * GPU token by token.
 */

/** What a policy may ask the cache to measure. */
export type KvNeed =
  /** Euclidean norm of the key. */
  | 'keyNorm'
  /** Euclidean norm of the value. */
  | 'valueNorm'
  /** Cosine of the key and the sum of the unit keys of all held tokens. */
  | 'keySimilarity'
  /** The key itself, as it is cached: rotated. */
  | 'keys'
  /** The value itself. */
  | 'values'
  /** Attention received from recent queries. */
  | 'attention'
  /** Mean and covariance of the queries to come. */
  | 'queries';

/** Queries that are expected over the next tokens, in the space of the cached keys. */
export interface KvQueries {
  /** Query heads of a layer, a multiple of the KV heads; neighbours share a KV head. */
  readonly heads: number;
  /** Shape `[layers, heads, headDim]`. */
  readonly mean: Float32Array;
  /** Shape `[layers, heads, headDim, headDim]`, symmetric. */
  readonly covariance: Float32Array;
}

/**
 * Held tokens of one sequence, in order, with what the policy needs; other arrays may be absent.
 */
export interface KvTokens {
  /** Tokens described here. */
  readonly tokenCount: number;
  /** Layers that share the block table. */
  readonly layers: number;
  /** KV heads of a layer. */
  readonly kvHeads: number;
  /** Position of each token, strictly ascending, shape `[tokens]`. */
  readonly positions: Uint32Array;
  /** Shape `[tokens, layers, kvHeads]`. */
  readonly keyNorm?: Float32Array;
  /** Shape `[tokens, layers, kvHeads]`. */
  readonly valueNorm?: Float32Array;
  /** In [-1, 1]; 0 for a zero key and for a zero sum; shape `[tokens, layers, kvHeads]`. */
  readonly keySimilarity?: Float32Array;
  /** Shape `[tokens, layers, kvHeads, headDim]`. */
  readonly keys?: Float32Array;
  /** Shape `[tokens, layers, kvHeads, headDim]`. */
  readonly values?: Float32Array;
  /**
   * Softmax weight that each token received, summed over the last `attentionQueries` queries of the
   * policy and averaged over the query heads of a KV head, shape `[tokens, layers, kvHeads]`.
   * Weight that a token received moves with it; weight of evicted tokens is gone.
   */
  readonly attention?: Float32Array;
  /** One for the sequence. */
  readonly queries?: KvQueries;
}

/** How far a sequence is after an append. */
export interface KvProgress {
  /** Tokens the sequence has ever seen. */
  readonly tokenCount: number;
  /** Tokens it holds, equal to `tokenCount` modulo the block size. */
  readonly cachedTokenCount: number;
  /** Whether the append filled a block. */
  readonly blockFilled: boolean;
}

/** The blocks of one sequence after an append. */
export interface KvBlocks extends KvProgress {
  /** Position of each held token, strictly ascending, shape `[cachedTokenCount]`. */
  readonly positions: Uint32Array;
  /** Score of each full block, oldest first, shape `[floor(cachedTokenCount / blockSize)]`. */
  readonly scores: ArrayLike<number>;
}

/**
 * A block score that is `factor` times the mean of one statistic over the tokens of the block, all
 * layers and all KV heads. A cache may reduce it where the numbers are, instead of asking
 * `scoreBlocks`.
 */
export interface KvBlockMean {
  readonly statistic:
    | 'keyNorm'
    | 'valueNorm'
    | 'keySimilarity'
    | 'attention'
    /** `valueNorm / max(keyNorm, epsilon)`. */
    | 'valueOverKeyNorm';
  readonly factor: 1 | -1;
  /** Smallest key norm that is divided by; 0 where nothing is divided. */
  readonly epsilon: number;
}

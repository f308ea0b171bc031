/**
 * The contract of KV policies: which cached tokens to give up when a sequence exceeds its budget.
 *
 * A policy is a pure function over numbers that somebody else measured. It names what it needs,
 * gets it as arrays, and answers with indices. It holds no state, so one policy serves any number
 * of sequences, and every decision can be replayed from its inputs.
 *
 * The cache drives it, per sequence:
 *
 * ```
 *   prefill   selectTokens(all held tokens)  -> kept indices; compact the cache to them
 *             scoreBlocks(the survivors)     -> one score per full block; remember them
 *   decode    an append fills a block: scoreBlocks(that block's tokens) -> remember its score
 *             selectVictim(remembered scores) -> one block to drop, or nothing
 * ```
 *
 * K and V of a cached token never change, so a score that depends on the token alone is computed
 * once, when its block fills (`blockScore: 'when-filled'`). A score that depends on other tokens or
 * on later queries is computed again for all blocks before each victim is chosen
 * (`'when-triggered'`).
 *
 * A policy is put together from four plug points: {@link KvScore} (how important is a token, per
 * layer and head), {@link KvAggregation} (one number per token, since all layers that share a block
 * table keep the same tokens), {@link KvTrigger} (when to evict) and {@link KvProtection} (what
 * never to evict). Higher scores are kept; of equal scores the lower index is evicted first.
 */

/** What a policy may ask the cache to measure for each token, layer and KV head. */
export type KvNeed =
  /** Euclidean norm of the key. */
  | 'keyNorm'
  /** Euclidean norm of the value. */
  | 'valueNorm'
  /** The key itself. */
  | 'keys'
  /** Attention received from recent queries. */
  | 'attention';

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
  /** Shape `[tokens, layers, kvHeads, headDim]`. */
  readonly keys?: Float32Array;
  /**
   * Softmax weight that each token received, summed over the last `attentionQueries` queries of the
   * policy and averaged over the query heads of a KV head, shape `[tokens, layers, kvHeads]`.
   */
  readonly attention?: Float32Array;
}

/** The blocks of one sequence after an append. */
export interface KvBlocks {
  /** Tokens the sequence has ever seen. */
  readonly tokenCount: number;
  /** Tokens it holds. */
  readonly cachedTokenCount: number;
  /** Whether the append filled a block. Appends between two questions may fill at most one. */
  readonly blockFilled: boolean;
  /** Score of each full block, oldest first, shape `[floor(cachedTokenCount / blockSize)]`. */
  readonly scores: ArrayLike<number>;
}

/** A block to drop. */
export interface KvVictim {
  /** Index in the block table. */
  readonly victim: number;
  /** Why it goes. KV policies evict for room only. */
  readonly reason: 'capacity';
  /** Its score. */
  readonly score: number;
}

/**
 * Tokens that are never evicted, however low their scores. Both ends are rounded outward to whole
 * blocks, at prefill too: blocks are what can be dropped later, and a block that holds a protected
 * token stays as a whole.
 */
export interface KvProtection {
  /** First tokens of the sequence, tokens. */
  readonly firstTokens: number;
  /**
   * Most recent tokens, tokens. Where it is not 0, a partial last block is protected beside them.
   */
  readonly lastTokens: number;
}

/** How a policy evicts in each phase. */
export interface KvGranularity {
  /** `'token'`: single tokens, before decode begins; `'none'`: never. */
  readonly prefill: 'token' | 'none';
  /** `'block'`: whole blocks, at most one per question; `'none'`: never. */
  readonly decode: 'block' | 'none';
}

/** When block scores are valid: see the head comment. */
export type KvBlockScore = 'when-filled' | 'when-triggered';

/** Plug point 1: the importance of each token in each layer and KV head. */
export interface KvScore {
  /** Arrays of {@link KvTokens} that {@link KvScore.score} reads. */
  readonly needs: readonly KvNeed[];
  /** Last queries whose attention is summed: 0 for none, `Infinity` for all. */
  readonly attentionQueries: number;
  /** Whether a score depends on its token alone. */
  readonly blockScore: KvBlockScore;
  /**
   * Fills `out`, shape `[tokens, layers, kvHeads]`. Higher is kept; every score is finite.
   * @throws VramError `invalid-argument` where a needed array is absent, of wrong length or not
   *   finite.
   */
  score(tokens: KvTokens, out: Float64Array): void;
}

/** Plug point 2: one score per token, `[tokens]`, from `[tokens, layers, kvHeads]`. */
export type KvAggregation = (scores: Float64Array, tokens: KvTokens) => Float64Array;

/** Plug point 3: whether a block has to go now. */
export type KvTrigger = (blocks: KvBlocks, budgetTokens: number) => boolean;

/** Decides which tokens of a sequence stay cached. Deterministic and without state. */
export interface KvPolicy {
  /** Name under which {@link kvPolicy} makes it. */
  readonly name: string;
  /** Arrays of {@link KvTokens} that it reads. */
  readonly needs: readonly KvNeed[];
  /** Last queries whose attention is summed: 0 for none, `Infinity` for all. */
  readonly attentionQueries: number;
  /** How it evicts in each phase. */
  readonly granularity: KvGranularity;
  /** Tokens of a block. */
  readonly blockSize: number;
  /**
   * Tokens that stay, a multiple of the block size; `Infinity` for no limit. Beside them stays the
   * partial last block, so a sequence holds at most `budgetTokens + blockSize - 1` tokens.
   */
  readonly budgetTokens: number;
  /** What is never evicted. */
  readonly protect: KvProtection;
  /** When block scores are valid. */
  readonly blockScore: KvBlockScore;

  /**
   * Score of each token, shape `[tokens]`; higher is kept.
   * @throws VramError `invalid-argument` where an array that it needs is absent, of wrong length or
   *   holds a value that is not finite.
   */
  scoreTokens(tokens: KvTokens): Float64Array;

  /**
   * Which of the held tokens stay: ascending indices. All of them within the budget; otherwise
   * `budgetTokens + tokenCount mod blockSize` of them, so that the number held stays congruent to
   * the number seen modulo the block size.
   * @throws VramError `invalid-argument` as {@link KvPolicy.scoreTokens}.
   */
  selectTokens(tokens: KvTokens): Uint32Array;

  /**
   * Score of each full block that `tokens` makes up from its first token on, shape
   * `[floor(tokenCount / blockSize)]`.
   * @throws VramError `invalid-argument` as {@link KvPolicy.scoreTokens}.
   */
  scoreBlocks(tokens: KvTokens): Float64Array;

  /**
   * The one block to drop after an append, if any.
   * @throws VramError `invalid-argument` where the number of scores is not that of the full blocks,
   *   or a score is not finite.
   */
  selectVictim(blocks: KvBlocks): KvVictim | undefined;
}

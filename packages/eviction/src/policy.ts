/**
 * The contract of KV policies: which cached tokens to give up when a sequence exceeds its budget.
 *
 * A policy is a pure function over numbers that somebody else measured. It names what it needs
 * ({@link KvNeed}), gets it as arrays, and answers with indices. It holds no state, so one policy
 * serves any number of sequences, and every decision can be replayed from its inputs.
 *
 * The cache drives it, per sequence:
 *
 * ```
 *   prefill   selectTokens(all held tokens)  -> kept indices; compact the cache to them
 *             scoreBlocks(the survivors)     -> one score per full block; remember them
 *   decode    an append fills a block: scoreBlocks(that block's tokens) -> remember its score
 *             while mustEvict(progress): selectVictim(scores) -> one block to drop, or none
 * ```
 *
 * K and V of a cached token never change, so a score that depends on the token alone is computed
 * once, when its block fills (`blockScore: 'when-filled'`). A score that depends on other tokens or
 * on later queries is computed anew over all held tokens before each victim is chosen
 * (`'when-triggered'`): nothing is measured, and nothing remembered, while `mustEvict` is false.
 *
 * A policy is put together from four plug points: {@link KvScore} (how important is a token, per
 * layer and head), {@link KvAggregation} (one number per token, since all layers that share a block
 * table keep the same tokens), {@link KvTrigger} (when to evict) and {@link KvProtection} (what
 * never to evict). Higher scores are kept; of equal scores the lower index is evicted first.
 */
import type { KvBlockMean, KvBlocks, KvNeed, KvProgress, KvTokens } from './needs.js';

/** A block to drop. */
export interface KvVictim {
  /** Index in the block table. */
  readonly victim: number;
  /** Why it goes. KV policies evict for room only. */
  readonly reason: 'capacity';
  /** Its score. */
  readonly score: number;
}

/** Positions `start` to `end - 1`. */
export interface PositionRange {
  readonly start: number;
  readonly end: number;
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
  /** Further tokens by position, token by token at prefill. Default: none. */
  readonly ranges?: readonly PositionRange[];
}

/** How a policy evicts in each phase. */
export interface KvGranularity {
  /**
   * `'token'`: single tokens, before decode begins; `'block'`: whole blocks of the held tokens;
   * `'none'`: never.
   */
  readonly prefill: 'token' | 'block' | 'none';
  /** `'block'`: whole blocks, one per answer; `'none'`: never. */
  readonly decode: 'block' | 'none';
}

/** When block scores are valid: see the head comment. */
export type KvBlockScore = 'when-filled' | 'when-triggered';

/** Plug point 1: the importance of each token in each layer and KV head. */
export interface KvScore {
  /** Parts of {@link KvTokens} that {@link KvScore.score} reads. */
  readonly needs: readonly KvNeed[];
  /** Last queries whose attention is summed: 0 for none, `Infinity` for all. */
  readonly attentionQueries: number;
  /** Whether a score depends on its token alone. */
  readonly blockScore: KvBlockScore;
  /** The mean that a block scores by, where it is one: a shortcut, never another rule. */
  readonly blockMean: KvBlockMean | undefined;
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
export type KvTrigger = (progress: KvProgress, budgetTokens: number) => boolean;

/** What a policy says about itself: plain data. */
export interface KvDeclaration {
  /** Name under which {@link kvPolicy} makes it. */
  readonly name: string;
  /** Parts of {@link KvTokens} that it reads. */
  readonly needs: readonly KvNeed[];
  /** Last queries whose attention is summed: 0 for none, `Infinity` for all. */
  readonly attentionQueries: number;
  /** How it evicts in each phase. */
  readonly granularity: KvGranularity;
  /** Tokens of a block. */
  readonly blockSize: number;
  /**
   * Tokens that stay, a multiple of the block size; `Infinity` for no limit. Beside them stays the
   * partial last block, so a sequence that is asked about at each filled block holds at most
   * `budgetTokens + blockSize - 1` tokens.
   */
  readonly budgetTokens: number;
  /** What is never evicted. */
  readonly protect: KvProtection;
  /** When block scores are valid. */
  readonly blockScore: KvBlockScore;
  /** The mean that a block scores by, where it is one. */
  readonly blockMean: KvBlockMean | undefined;
}

/** Decides which tokens of a sequence stay cached. Deterministic and without state. */
export interface KvPolicy extends KvDeclaration {
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
   * Whether a block has to go. A cache asks again after each block that it dropped, until the
   * answer is no: a sequence far above its budget comes down to it.
   */
  mustEvict(progress: KvProgress): boolean;

  /**
   * The one block to drop; `undefined` where {@link KvPolicy.mustEvict} is false or every block is
   * protected.
   * @throws VramError `invalid-argument` where the number of scores or positions is not that of the
   *   full blocks or held tokens, or a score is not finite.
   */
  selectVictim(blocks: KvBlocks): KvVictim | undefined;
}

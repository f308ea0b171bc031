/**
 * What a sequence holds, as far as the prefix cache must know: the node of its last full block, and
 * the tokens behind it that do not fill a block yet.
 *
 * ```
 *   tokens     0 1 2 3 | 4 5 6 7 | 8 9          blockSize 4, committed 10
 *              node      tip       pending
 * ```
 *
 * A token is committed once it is certain: a prompt's at once, a draft's when it is accepted. Only
 * committed tokens have nodes. Behind a hole (a token that a policy evicted) nothing has a node
 * either: what follows was computed from tokens that are gone, so nobody else may use it. The same
 * holds where the cache has no room for another prefix.
 *
 * Invariants: the tip is at depth `tipDepth` and holds a use; without a hole, committed tokens are
 * those of the tip's blocks and the pending ones.
 */
import { assertInvariant } from '@vramkit/core';
import { NO_KEYS, extraKey, type ContentKeys } from './content-keys.js';
import { uintAt } from './index-array.js';
import { ROOT_NODE } from './prefix-nodes.js';
import type { PrefixCache } from './prefix-cache.js';

/** What a manager knows of a sequence's contents, as plain data. */
export interface SequenceContentState {
  readonly keys: ContentKeys;
  readonly rank: number;
  readonly hitTokens: number;
  readonly isShared: boolean;
  /** Number of its node in the state of the cache; 0 for the root. */
  readonly tip: number;
  readonly pending: readonly number[];
  readonly committedCount: number;
  /** Left out without a hole. */
  readonly brokenAt?: number | undefined;
}

/** Content of one sequence; objects are used again. */
export class SequenceContent {
  readonly #cache: PrefixCache;
  readonly #pending: Uint32Array;
  keys: ContentKeys = NO_KEYS;
  /** What its blocks are worth to the cache once nobody holds them. */
  rank = 1;
  /** Tokens that were hit when it began. */
  hitTokens = 0;
  /** Whether its blocks may be hit by others. */
  isShared = true;
  #tip = ROOT_NODE;
  #tipDepth = 0;
  #pendingCount = 0;
  #committedCount = 0;
  /** First position that nothing may be published from. */
  #brokenAt = Infinity;

  constructor(cache: PrefixCache) {
    this.#cache = cache;
    this.#pending = new Uint32Array(cache.nodes.blockSize);
  }

  /** Tokens that are certain. */
  get committedCount(): number {
    return this.#committedCount;
  }

  /** Node of the last full block, or the root. */
  get tip(): number {
    return this.#tip;
  }

  /** Full blocks that have nodes. */
  get tipDepth(): number {
    return this.#tipDepth;
  }

  /** First position behind a hole; Infinity without one. */
  get brokenAt(): number {
    return this.#brokenAt;
  }

  /** Tokens behind the tip: a view. */
  get pending(): Uint32Array {
    return this.#pending.subarray(0, this.#pendingCount);
  }

  /** Starts over at a known node, or at the root; what was held before must have been released. */
  begin(tip: number, tipDepth: number): void {
    const { nodes } = this.#cache;
    this.#cache.retain(tip);
    this.#tip = tip;
    this.#tipDepth = tipDepth;
    this.#pendingCount = 0;
    this.#committedCount = tipDepth * nodes.blockSize;
    this.#brokenAt = Infinity;
  }

  /** Gives the tip back. */
  end(): void {
    this.#cache.release(this.#tip);
    this.#tip = ROOT_NODE;
    this.keys = NO_KEYS;
  }

  /**
   * Takes `tokens[start ..]` as certain, up to the end of a block: call it until all are taken.
   * @returns How many were taken.
   */
  take(tokens: Uint32Array, start: number, end: number): number {
    const { blockSize } = this.#cache.nodes;
    const count = Math.min(blockSize - this.#pendingCount, end - start);
    if (!this.isShared || this.#committedCount >= this.#brokenAt) {
      this.#committedCount += end - start;
      return end - start;
    }
    const isWhole = (this.#tipDepth + 1) * blockSize <= this.#brokenAt;
    if (count === blockSize && isWhole) this.#grow(tokens, start);
    else {
      for (let index = 0; index < count; index++) {
        this.#pending[this.#pendingCount + index] = uintAt(tokens, start + index);
      }
      this.#pendingCount += count;
      if (this.#pendingCount === blockSize && isWhole) this.#grow(this.#pending, 0);
    }
    this.#committedCount += count;
    return count;
  }

  /** Forgets positions from `tokenCount` on. */
  truncate(tokenCount: number): void {
    const isBroken = tokenCount > this.#brokenAt;
    if (!isBroken) this.#brokenAt = Infinity;
    if (tokenCount >= this.#committedCount) return;
    this.#committedCount = tokenCount;
    if (!this.isShared || isBroken) return;
    const { nodes } = this.#cache;
    const depth = Math.floor(tokenCount / nodes.blockSize);
    const rest = tokenCount - depth * nodes.blockSize;
    if (depth < this.#tipDepth) {
      let node = this.#tip;
      while (nodes.depthOf(node) > depth + 1) node = nodes.parentOf(node);
      const above = nodes.parentOf(node);
      this.#pending.set(this.#tokensOf(node).subarray(0, rest));
      this.#cache.retain(above);
      this.#cache.release(this.#tip);
      this.#tip = above;
      this.#tipDepth = depth;
    }
    this.#pendingCount = rest;
  }

  /** Says that a token at `position` is gone. */
  breakAt(position: number): void {
    this.#brokenAt = Math.min(this.#brokenAt, position);
  }

  /** Becomes the content of a fork of `other` at `tokenCount`. */
  copyFrom(other: SequenceContent, tokenCount: number): void {
    this.keys = other.keys;
    this.rank = other.rank;
    this.isShared = other.isShared;
    this.hitTokens = 0;
    this.begin(other.#tip, other.#tipDepth);
    this.#pending.set(other.#pending);
    this.#pendingCount = other.#pendingCount;
    this.#committedCount = other.#committedCount;
    this.#brokenAt = other.#brokenAt;
    this.truncate(tokenCount);
  }

  /**
   * As plain data.
   * @param tip Number of its node in the state of the cache.
   */
  save(tip: number): SequenceContentState {
    const { keys, rank, hitTokens, isShared } = this;
    return {
      ...{ keys, rank, hitTokens, isShared, tip },
      pending: [...this.pending],
      committedCount: this.#committedCount,
      brokenAt: this.#brokenAt === Infinity ? undefined : this.#brokenAt,
    };
  }

  /** Becomes what {@link save} gave, at the node that its tip has now. */
  restore(state: SequenceContentState, tip: number): void {
    this.begin(tip, tip === ROOT_NODE ? 0 : this.#cache.nodes.depthOf(tip));
    this.keys = state.keys;
    this.rank = state.rank;
    this.hitTokens = state.hitTokens;
    this.isShared = state.isShared;
    this.#pending.set(state.pending);
    this.#pendingCount = state.pending.length;
    this.#committedCount = state.committedCount;
    this.#brokenAt = state.brokenAt ?? Infinity;
    this.check();
  }

  /** Verifies the invariants of the head comment. @throws VramError `invariant`. */
  check(): void {
    const { nodes } = this.#cache;
    assertInvariant(
      this.#tip === ROOT_NODE || nodes.isLive(this.#tip),
      `the tip ${this.#tip} is freed`,
    );
    const depth = this.#tip === ROOT_NODE ? 0 : nodes.depthOf(this.#tip);
    assertInvariant(depth === this.#tipDepth, `tip at depth ${depth}, not ${this.#tipDepth}`);
    const counted = this.#tipDepth * nodes.blockSize + this.#pendingCount;
    assertInvariant(
      !this.isShared || this.#brokenAt !== Infinity || counted === this.#committedCount,
      `${counted} tokens in blocks and behind, ${this.#committedCount} committed`,
    );
  }

  #grow(tokens: Uint32Array, start: number): void {
    const { blockSize } = this.#cache.nodes;
    const first = this.#tipDepth * blockSize;
    const extra = this.keys === NO_KEYS ? '' : extraKey(this.keys, first, first + blockSize);
    const node = this.#cache.extend(this.#tip, tokens, start, extra);
    if (node === 0) {
      // No room for the prefix: pending holds it whole, as behind a hole.
      this.#brokenAt = first;
      return;
    }
    this.#cache.release(this.#tip);
    this.#tip = node;
    this.#tipDepth++;
    this.#pendingCount = 0;
  }

  #tokensOf(node: number): Uint32Array {
    const { tokens, blockSize } = this.#cache.nodes;
    return tokens.subarray(node * blockSize, (node + 1) * blockSize);
  }
}

/**
 * The KV cache manager: what a scheduler asks about memory. Which of a prompt's tokens are cached,
 * whether a request fits, where its tokens go, and what becomes of its blocks afterwards.
 *
 * It joins three layers. {@link KvSequences}, one per group of layers, keeps tables and reference
 * counts; {@link PrefixCache} knows what blocks hold; {@link SequenceContent} says which tokens of
 * a sequence are certain. A sequence has one handle in all of them.
 *
 * ```
 *   tryAllocate(prompt) ──▶ hit blocks, and slots for the rest
 *   tryAppend(token)    ──▶ slots; a block that fills can be hit by others from now on
 *   tryReserve(drafts)  ──▶ slots for tokens that may be taken back; commit(), truncate()
 *   free()              ──▶ blocks stay hittable until they are needed
 * ```
 *
 * A call does all of what it says or nothing; `undefined` means that blocks are missing and nothing
 * has changed. What has to happen to K and V comes back as data, to be executed in the order of the
 * calls: copies of a call first, then its writes. A block can be hit as soon as the call that
 * filled it has returned, so its writes must be recorded before those of a later call.
 *
 * Length: the one interface that a scheduler has; half of it says what calls promise.
 *
 * Invariants ({@link KvCacheManager.check}): those of all layers; a cached block that a table holds
 * holds the tokens of its node.
 */
import { checkInteger } from '@vramkit/core';
import { BlockPins } from './block-pins.js';
import { MAX_RANK, NULL_BLOCK, type BlockPool } from './block-pool.js';
import type { BlockTableView } from './block-table.js';
import { RequestCounter, type CacheMetrics } from './cache-metrics.js';
import type { TokenMoves } from './compaction.js';
import { checkKeys, NO_KEYS, type ContentKeys } from './content-keys.js';
import { itemAt, type IndexList } from './index-array.js';
import type {
  AllocateOptions,
  FarMatch,
  GroupMappings,
  KvCacheManagerOptions,
  KvCacheState,
  ManagedFork,
} from './kv-cache-options.js';
import { groupRule, type GroupRule } from './kv-groups.js';
import type { KvSequences } from './kv-sequences.js';
import { ManagedSequences } from './managed-sequences.js';
import { PrefixCache } from './prefix-cache.js';
import { PrefixLookup, type Elsewhere } from './prefix-lookup.js';
import { SlotMapping } from './slot-mapping.js';

/**
 * Sequences over one pool with a prefix cache; see the notes of this module.
 *
 * @example
 * ```ts
 * import { BlockPool, KvCacheManager, SlotMapping } from '@vramkit/block-allocator';
 * const manager = new KvCacheManager(new BlockPool({ blockCount: 1024, blockSize: 16 }));
 * const prompt = Uint32Array.from({ length: 100 }, (_, index) => index);
 * const step = new SlotMapping();
 * const sequence = manager.tryAllocate(prompt, step);
 * if (sequence !== undefined) {
 *   console.log(manager.hitTokens(sequence), step.slots.length); // 0 cached, 100 to compute
 *   step.clear();
 *   manager.tryAppend(sequence, Uint32Array.of(7), step);
 *   manager.free(sequence);
 * }
 * console.log(manager.match(prompt)); // 96: six full blocks
 * ```
 */
export class KvCacheManager {
  readonly pool: BlockPool;
  readonly cache: PrefixCache;
  /** Tables by group; changed through the manager only. */
  readonly sequences: readonly KvSequences[];
  readonly #rules: readonly GroupRule[];
  readonly #isCaching: boolean;
  readonly #watermarkBlocks: number;
  readonly #lookup: PrefixLookup;
  readonly #counter: RequestCounter;
  readonly #managed: ManagedSequences;
  readonly #pins: BlockPins;
  /** The mapping of a manager with one group, as a list. */
  readonly #onlyMapping: SlotMapping[] = [];

  /**
   * Becomes the keeper of `pool`, whose block size is that of the cache.
   * @throws VramError `invalid-argument` where an option is out of range.
   */
  constructor(pool: BlockPool, options: KvCacheManagerOptions = {}) {
    const { groups = [{ kind: 'full' }], watermarkBlocks = 0, metricsWindow = 1000 } = options;
    checkInteger('count of groups', groups.length, 1, 255);
    this.pool = pool;
    this.#rules = groups.map((group) => groupRule(group, pool.blockSize));
    this.#isCaching = options.isCaching ?? true;
    this.#watermarkBlocks = checkInteger('watermarkBlocks', watermarkBlocks, 0, pool.blockCount);
    this.#counter = new RequestCounter(metricsWindow);
    this.cache = new PrefixCache(pool, { ...options, groupCount: groups.length });
    this.#managed = new ManagedSequences(this.cache, this.#rules);
    this.sequences = this.#managed.sequences;
    this.#lookup = new PrefixLookup(this.cache, this.#rules);
    const { maxPinnedBlocks = Math.floor(pool.blockCount / 5) } = options;
    this.#pins = new BlockPins(pool, maxPinnedBlocks);
  }

  /** How many sequences exist, suspended ones included. */
  get sequenceCount(): number {
    return this.#managed.size;
  }

  /** Whether `sequence` exists and is not suspended. */
  has(sequence: number): boolean {
    return this.#managed.has(sequence);
  }

  /**
   * The block table of a sequence in a group, live until the sequence is freed or suspended.
   * @throws VramError `not-found` where there is no such sequence.
   */
  table(sequence: number, group = 0): BlockTableView {
    return this.#managed.table(sequence, group);
  }

  /** Tokens that a sequence began with without computing them. @throws VramError `not-found`. */
  hitTokens(sequence: number): number {
    return this.#managed.state(sequence).content.hitTokens;
  }

  /** Tokens of a sequence that are certain. @throws VramError `not-found`. */
  committedTokens(sequence: number): number {
    return this.#managed.state(sequence).content.committedCount;
  }

  /**
   * How many leading tokens of a prompt are cached: what {@link tryAllocate} would hit. At most all
   * but one. Changes nothing; O(tokens).
   */
  match(tokens: Uint32Array, keys: ContentKeys = NO_KEYS): number {
    this.#find(tokens, { keys });
    return this.#lookup.tokenCount;
  }

  /**
   * {@link match} where contents count that are not on the device; {@link KvTiers} asks so. Changes
   * nothing.
   * @internal
   */
  matchWith(tokens: Uint32Array, keys: ContentKeys, elsewhere: Elsewhere): FarMatch {
    const lookup = this.#lookup;
    lookup.search(tokens, keys, tokens.length - 1, elsewhere);
    const present = lookup.blocks().filter((id) => id !== NULL_BLOCK);
    return { tokenCount: lookup.tokenCount, missing: lookup.missing(), present };
  }

  /**
   * Free blocks that {@link tryAllocate} would take, hit blocks that are free included. Changes
   * nothing. It succeeds where that and the watermark fit {@link BlockPool.freeCount}.
   * @throws VramError `invalid-argument` as {@link tryAllocate}.
   */
  blocksNeeded(tokens: Uint32Array, options: AllocateOptions = {}): number {
    this.#find(tokens, options);
    return this.#cost(this.#appendCount(tokens, options));
  }

  /** Whether {@link tryAllocate} would succeed. Changes nothing. @throws VramError as it does. */
  canAllocate(tokens: Uint32Array, options: AllocateOptions = {}): boolean {
    return this.blocksNeeded(tokens, options) + this.#watermarkBlocks <= this.pool.freeCount;
  }

  /**
   * A new sequence for a prompt: blocks that are cached, and slots for what is not.
   * @param into Receives slots and copies of the tokens that are to be computed.
   * @returns Its handle, or `undefined` where that would leave fewer free blocks than the
   *   watermark.
   * @throws VramError `invalid-argument` where an option is out of range.
   */
  tryAllocate(
    tokens: Uint32Array,
    into: GroupMappings,
    options: AllocateOptions = {},
  ): number | undefined {
    const { keys = NO_KEYS, rank = 1, isResumed = false } = options;
    checkInteger('rank', rank, 1, MAX_RANK);
    checkKeys(keys);
    const mappings = this.#listed(into);
    this.#find(tokens, options);
    const lookup = this.#lookup;
    // Copies of a mapping come before its writes, so a block that it writes cannot be copied yet.
    if (
      lookup.partialTokens > 0 &&
      itemAt(mappings, 0).writesTo(lookup.partialBlock, this.pool.blockSize)
    ) {
      lookup.dropPartial();
    }
    const count = this.#appendCount(tokens, options);
    if (this.#cost(count) + this.#watermarkBlocks > this.pool.freeCount) return undefined;
    const content = this.#managed.content();
    content.begin(lookup.tip, lookup.blockCount);
    content.keys = keys;
    content.rank = rank;
    content.isShared = this.#isCaching;
    content.hitTokens = lookup.tokenCount;
    const sequence = this.#managed.create(content);
    lookup.adopt(sequence, this.sequences, rank);
    const { partialBlock: from, partialTokens } = lookup;
    const hit = content.committedCount;
    this.#counter.add(tokens.length, content.hitTokens, isResumed);
    const state = this.#managed.state(sequence);
    this.#managed.take(sequence, state, partialTokens + count, mappings, partialTokens);
    if (partialTokens > 0) {
      const to = this.table(sequence).blockAt(lookup.blockCount);
      itemAt(mappings, 0).copies.push({ from, to, tokens: partialTokens });
    }
    this.#managed.commitTo(state, tokens, hit, hit + partialTokens + count);
    return sequence;
  }

  /**
   * Makes room for `count` tokens that are not certain yet (drafts, or tokens that are computed
   * later) and says where they go. What a window has passed is released first.
   * @returns Whether there was room; where not, nothing has changed.
   * @throws VramError `not-found` for an unknown sequence, `invalid-argument` where `count` is no
   *   count, a mapping is missing, or positions would exceed 2^31 - 1.
   */
  tryReserve(sequence: number, count: number, into: GroupMappings): boolean {
    return this.#managed.tryReserve(sequence, count, this.#listed(into));
  }

  /**
   * Says what the next uncertain tokens are: `tokens[start .. end)`. Blocks that they fill can be
   * hit by others.
   * @throws VramError `not-found`; `invalid-argument` where fewer tokens are reserved.
   */
  commit(sequence: number, tokens: Uint32Array, start = 0, end = tokens.length): void {
    this.#managed.commit(sequence, tokens, start, end);
  }

  /**
   * Appends tokens that are certain: {@link tryReserve} and {@link commit} in one.
   * @returns Whether there was room; where not, nothing has changed.
   * @throws VramError as {@link tryReserve}; `invalid-argument` where uncertain tokens come first.
   */
  tryAppend(
    sequence: number,
    tokens: Uint32Array,
    into: GroupMappings,
    start = 0,
    end = tokens.length,
  ): boolean {
    return this.#managed.tryAppend(sequence, tokens, this.#listed(into), start, end);
  }

  /**
   * A new sequence with the tokens before position `tokenCount` (all by default). Full blocks are
   * shared, partial ones copied.
   * @returns `undefined` where the pool has no blocks for the copies.
   * @throws VramError `not-found`; `invalid-argument` where the sequence has not seen that many
   *   tokens, or a window has passed what they see.
   */
  tryFork(sequence: number, tokenCount?: number): ManagedFork | undefined {
    return this.#managed.tryFork(sequence, tokenCount);
  }

  /**
   * Forgets every position from `tokenCount` on, such as rejected drafts. What others share stays
   * theirs.
   * @throws VramError as {@link tryFork}.
   */
  truncate(sequence: number, tokenCount: number): void {
    this.#managed.truncate(sequence, tokenCount);
  }

  /**
   * Evicts blocks `[index, index + count)` of a table for a KV policy. Their tokens leave a hole:
   * what the sequence computes from now on is not offered to others. Blocks that others share or
   * can hit stay whole.
   * @throws VramError `not-found`; `invalid-argument` where there are no such blocks.
   */
  dropBlocks(sequence: number, index: number, count = 1, group = 0): void {
    this.#managed.dropBlocks(sequence, index, count, group);
  }

  /**
   * Evicts all held tokens of a group but `kept` and closes the gaps; see
   * {@link KvSequences.tryCompact}. The first evicted token is a hole as {@link dropBlocks} leaves.
   * @returns The moves, or `undefined` where the pool has too few free blocks.
   * @throws VramError as {@link KvSequences.tryCompact}.
   */
  tryCompact(sequence: number, kept: IndexList, group = 0): TokenMoves | undefined {
    return this.#managed.tryCompact(sequence, kept, group);
  }

  /**
   * Ends a sequence. Blocks that are cached stay hittable until they are handed out again.
   * @throws VramError `not-found` for an unknown sequence, so also for one freed before.
   */
  free(sequence: number): void {
    this.#managed.free(sequence);
  }

  /**
   * Ends a sequence that will come back: allocate its tokens again with `isResumed`, and what of
   * its blocks is left by then need not be computed.
   * @throws VramError `not-found`.
   */
  preempt(sequence: number): void {
    this.free(sequence);
    this.#counter.preemptions++;
  }

  /**
   * Drops the blocks of a sequence whose contents were copied away, and keeps what it was;
   * {@link KvSwap} does so. Until {@link tryResume} every call but {@link free} finds no such
   * sequence.
   * @throws VramError `not-found`.
   */
  suspend(sequence: number): void {
    this.#managed.suspend(sequence);
    this.#counter.preemptions++;
  }

  /**
   * Gives a suspended sequence fresh blocks, for its contents to be copied into.
   * @returns Whether there was room.
   * @throws VramError `not-found` for a sequence that is not suspended.
   */
  tryResume(sequence: number): boolean {
    return this.#managed.tryResume(sequence);
  }

  /**
   * Makes the full blocks of a resumed sequence hittable, once their contents are back. O(blocks).
   * @throws VramError `not-found`.
   */
  republish(sequence: number): void {
    this.#managed.republish(sequence);
  }

  /**
   * Keeps the cached blocks of a prefix, full ones only, whatever the load.
   * @returns A handle, or `undefined` where nothing is cached or `maxPinnedBlocks` would be
   *   exceeded.
   */
  tryPin(tokens: Uint32Array, keys: ContentKeys = NO_KEYS): number | undefined {
    this.#lookup.search(tokens, keys, tokens.length);
    const ids = this.#lookup.blocks();
    return ids.length === 0 ? undefined : this.#pins.tryPin(ids);
  }

  /** Blocks that pins hold. */
  get pinnedCount(): number {
    return this.#pins.blockCount;
  }

  /** Takes a pin back. @throws VramError `not-found` for an unknown one. */
  unpin(pin: number): void {
    this.#pins.unpin(pin);
  }

  /** Takes all pins back. */
  unpinAll(): void {
    this.#pins.unpinAll();
  }

  /**
   * Leading blocks that all sequences share in a group: attention over them can be computed once.
   * @throws VramError `not-found`.
   */
  commonBlocks(sequences: readonly number[], group = 0): number {
    const tables = sequences.map((sequence) => this.table(sequence, group));
    const shortest = Math.min(...tables.map(({ blockCount }) => blockCount));
    if (tables.length === 0) return 0;
    let count = 0;
    const [first, ...others] = tables;
    while (count < shortest) {
      const id = first?.blockAt(count);
      if (others.some((table) => table.blockAt(count) !== id)) break;
      count++;
    }
    return count;
  }

  /**
   * Says that blocks do not hold what they should, after a transfer or a step failed. Nobody will
   * hit their prefixes, nor what was computed behind them, also by sequences that were freed. Those
   * that hold such blocks keep them; one that is truncated to before the damage and computed again
   * is as good as new. O(blocks of all tables + known prefixes).
   * @throws VramError `invalid-argument` for an id that is no block; nothing has changed then.
   */
  invalidate(ids: IndexList): void {
    this.#managed.invalidate(ids);
  }

  /**
   * The whole state as plain data, but for metrics and what a policy has learnt. What blocks hold
   * is for the owner of the bytes to save.
   * @throws VramError `invalid-argument` where a sequence is suspended: its contents are elsewhere.
   */
  save(): KvCacheState {
    const { pool } = this;
    const { blockCount, blockSize } = pool;
    return {
      ...{ version: 1, blockCount, blockSize },
      references: Array.from({ length: blockCount }, (_, id) => pool.referenceCount(id)),
      freeIds: [...pool.freeIds()],
      cache: this.cache.save(),
      sequences: this.sequences.map((sequences) => sequences.save()),
      contents: this.#managed.save(),
      pins: this.#pins.save(),
    };
  }

  /**
   * A manager in the state that {@link save} gave; handles stay what they were. Events say what is
   * stored anew. The time that blocks spent in their rank begins anew.
   * @param pool A fresh pool of the same sizes.
   * @param options Those of the manager that was saved.
   * @throws VramError `invalid-argument` where sizes or groups differ, or the pool is in use.
   */
  static restore(
    state: KvCacheState,
    pool: BlockPool,
    options: KvCacheManagerOptions = {},
  ): KvCacheManager {
    checkInteger('blockCount', pool.blockCount, state.blockCount, state.blockCount);
    checkInteger('blockSize', pool.blockSize, state.blockSize, state.blockSize);
    checkInteger('free blocks', pool.freeCount, state.blockCount - 1);
    const manager = new KvCacheManager(pool, options);
    const groups = manager.sequences.length;
    checkInteger('count of groups', state.sequences.length, groups, groups);
    pool.allocate(pool.freeCount);
    const nodes = manager.cache.restore(state.cache);
    pool.restore(state.references, state.freeIds);
    state.sequences.forEach((each, group) => itemAt(manager.sequences, group).restore(each));
    manager.#managed.restore(state.contents, nodes);
    for (const node of nodes) manager.cache.release(node);
    manager.#pins.restore(state.pins);
    manager.check();
    return manager;
  }

  /** Counts so far; a snapshot. */
  metrics(): CacheMetrics {
    const { requests, queryTokens, hitTokens, recentHitRate } = this.#counter;
    const { preemptions, resumed, resumedHitTokens } = this.#counter;
    return {
      ...{ requests, queryTokens, hitTokens, recentHitRate, preemptions, resumed },
      resumedHitTokens,
      evictedBlocks: this.pool.evictedCount,
      cachedBlocks: this.cache.cachedCount,
      usage: this.pool.usage,
    };
  }

  /**
   * Verifies every invariant of all layers. O(blocks + tokens).
   * @throws VramError `invariant` naming the first thing that breaks one.
   */
  check(): void {
    this.cache.check();
    this.#managed.check();
  }

  /** The mappings of all groups. @throws VramError `invalid-argument` where there are others. */
  #listed(into: GroupMappings): readonly SlotMapping[] {
    const groups = this.#rules.length;
    if (into instanceof SlotMapping) {
      if (groups !== 1) checkInteger('count of mappings', 1, groups, groups);
      this.#onlyMapping[0] = into;
      return this.#onlyMapping;
    }
    checkInteger('count of mappings', into.length, groups, groups);
    return into;
  }

  #find(tokens: Uint32Array, { keys = NO_KEYS, skipLookup = false }: AllocateOptions): void {
    if (this.#isCaching && !skipLookup) this.#lookup.search(tokens, keys);
    else this.#lookup.clear();
  }

  #appendCount(tokens: Uint32Array, { appendTokens }: AllocateOptions): number {
    const rest = tokens.length - this.#lookup.tokenCount;
    return appendTokens === undefined
      ? rest
      : Math.min(rest, checkInteger('appendTokens', appendTokens));
  }

  /** Free blocks that the last lookup and `count` tokens behind it take. */
  #cost(count: number): number {
    const end = this.#lookup.tokenCount + count;
    let needed = this.#lookup.countFree();
    for (let group = 0; group < this.#rules.length; group++) {
      const { blockSize, scale } = itemAt(this.#rules, group);
      needed += Math.ceil(end / blockSize) - this.#lookup.blockCount / scale;
    }
    return needed;
  }
}

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
 * Invariants ({@link KvCacheManager.check}): those of all layers; a cached block that a table holds
 * holds the tokens of its node.
 */
import { assertInvariant, checkInteger, fail } from '@vramkit/core';
import { MAX_RANK, type BlockPool } from './block-pool.js';
import type { BlockTableView } from './block-table.js';
import { RequestCounter, type CacheMetrics } from './cache-metrics.js';
import type { TokenMoves } from './compaction.js';
import { checkKeys, NO_KEYS, type ContentKeys } from './content-keys.js';
import { at, itemAt, type IndexList } from './index-array.js';
import {
  canGoOnAt,
  groupRule,
  releasableBlocks,
  type GroupRule,
  type KvGroup,
} from './kv-groups.js';
import { KvSequences } from './kv-sequences.js';
import { PrefixCache, type PrefixCacheOptions } from './prefix-cache.js';
import { PrefixLookup } from './prefix-lookup.js';
import { SequenceContent } from './sequence-content.js';
import { SlotMapping, type BlockCopy } from './slot-mapping.js';

/** Options of {@link KvCacheManager}. */
export interface KvCacheManagerOptions extends Omit<PrefixCacheOptions, 'groupCount'> {
  /** Groups of layers with tables of their own. Default: one that sees all. */
  readonly groups?: readonly KvGroup[];
  /** Whether blocks can be hit by other sequences. Default: true. */
  readonly isCaching?: boolean;
  /** Free blocks that {@link KvCacheManager.tryAllocate} leaves to running ones. Default: 0. */
  readonly watermarkBlocks?: number;
  /** Requests that make up the recent hit rate; 0 records no metrics. Default: 1000. */
  readonly metricsWindow?: number;
}

/** Options of {@link KvCacheManager.tryAllocate}. */
export interface AllocateOptions {
  /** What separates the sequence from others with equal tokens. Default: nothing. */
  readonly keys?: ContentKeys;
  /**
   * Tokens behind the hit to make room for at once; the others are appended later, for prompts that
   * are prefilled in chunks. Default: all.
   */
  readonly appendTokens?: number;
  /**
   * Computes all tokens anew, for requests that need every logit of the prompt. Its blocks can
   * still be hit by others. Default: false.
   */
  readonly skipLookup?: boolean;
  /** What its blocks are worth once it is freed, from 1 to 7; higher stay longer. Default: 1. */
  readonly rank?: number;
  /** Whether it comes back after a preemption, so that its hits do not count. Default: false. */
  readonly isResumed?: boolean;
}

/** Where tokens of a step go: a mapping per group; a manager with one group takes it alone. */
export type GroupMappings = SlotMapping | readonly SlotMapping[];

/** Most contents of freed sequences that are kept for new ones. */
const MAX_SPARES = 1024;

interface Sequence {
  readonly content: SequenceContent;
  readonly tables: BlockTableView[];
}

/** What {@link KvCacheManager.tryFork} made. */
export interface ManagedFork {
  readonly sequence: number;
  /** Copies of the partial blocks, per group. */
  readonly copies: readonly (readonly BlockCopy[])[];
}

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
  readonly #states = new Map<number, Sequence>();
  readonly #spares: SequenceContent[] = [];

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
    this.sequences = this.#rules.map(({ blockSize }) => new KvSequences(pool, { blockSize }));
    this.cache = new PrefixCache(pool, { ...options, groupCount: groups.length });
    this.#lookup = new PrefixLookup(this.cache, this.#rules);
  }

  /** How many sequences exist. */
  get sequenceCount(): number {
    return this.#states.size;
  }

  /** Whether `sequence` exists and is not swapped out. */
  has(sequence: number): boolean {
    return this.#states.has(sequence);
  }

  /**
   * The block table of a sequence in a group, live until the sequence is freed or swapped out.
   * @throws VramError `not-found` where there is no such sequence.
   */
  table(sequence: number, group = 0): BlockTableView {
    return itemAt(this.#state(sequence).tables, checkInteger('group', group, 0, this.#lastGroup));
  }

  /** Tokens that a sequence began with without computing them. @throws VramError `not-found`. */
  hitTokens(sequence: number): number {
    return this.#state(sequence).content.hitTokens;
  }

  /** Tokens of a sequence that are certain. @throws VramError `not-found`. */
  committedTokens(sequence: number): number {
    return this.#state(sequence).content.committedCount;
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
    this.#checkMappings(into);
    this.#find(tokens, options);
    const lookup = this.#lookup;
    const count = this.#appendCount(tokens, options);
    if (this.#cost(count) + this.#watermarkBlocks > this.pool.freeCount) return undefined;
    const content = this.#spares.pop() ?? new SequenceContent(this.cache);
    content.begin(lookup.tip, lookup.blockCount);
    content.keys = keys;
    content.rank = rank;
    content.isShared = this.#isCaching;
    content.hitTokens = lookup.tokenCount;
    const sequence = this.#create(content);
    lookup.adopt(sequence, this.sequences, rank);
    const { partialBlock: from, partialTokens } = lookup;
    const hit = content.committedCount;
    this.#counter.add(tokens.length, content.hitTokens, isResumed);
    const state = this.#state(sequence);
    this.#take(sequence, state, partialTokens + count, into, partialTokens);
    if (partialTokens > 0) {
      const to = this.table(sequence).blockAt(lookup.blockCount);
      mappingOf(into, 0).copies.push({ from, to, tokens: partialTokens });
    }
    this.#commit(state, tokens, hit, hit + partialTokens + count);
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
    return this.#reserve(sequence, this.#state(sequence), count, into);
  }

  /**
   * Says what the next uncertain tokens are: `tokens[start .. end)`. Blocks that they fill can be
   * hit by others.
   * @throws VramError `not-found`; `invalid-argument` where fewer tokens are reserved.
   */
  commit(sequence: number, tokens: Uint32Array, start = 0, end = tokens.length): void {
    const state = this.#state(sequence);
    checkInteger('end', end, start, tokens.length);
    const reserved = itemAt(state.tables, 0).tokenCount - state.content.committedCount;
    checkInteger('count of tokens', end - start, 0, reserved);
    this.#commit(state, tokens, start, end);
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
    const state = this.#state(sequence);
    checkInteger('end', end, start, tokens.length);
    const uncertain = itemAt(state.tables, 0).tokenCount - state.content.committedCount;
    checkInteger('uncertain tokens', uncertain, 0, 0);
    if (!this.#reserve(sequence, state, end - start, into)) return false;
    this.#commit(state, tokens, start, end);
    return true;
  }

  /**
   * A new sequence with the tokens before position `tokenCount` (all by default). Full blocks are
   * shared, partial ones copied.
   * @returns `undefined` where the pool has no blocks for the copies.
   * @throws VramError `not-found`; `invalid-argument` where the sequence has not seen that many
   *   tokens, or a window has passed what they see.
   */
  tryFork(sequence: number, tokenCount?: number): ManagedFork | undefined {
    const { content, tables } = this.#state(sequence);
    const end = tokenCount ?? itemAt(tables, 0).tokenCount;
    this.#checkPosition(sequence, end);
    let partial = 0;
    this.#rules.forEach(({ blockSize }, group) => {
      if (itemAt(tables, group).cachedTokensBefore(end) % blockSize > 0) partial++;
    });
    if (partial > this.pool.freeCount) return undefined;
    const forks = this.sequences.map((sequences) => sequences.fork(sequence, end));
    const copy = this.#spares.pop() ?? new SequenceContent(this.cache);
    copy.copyFrom(content, end);
    const fork = itemAt(forks, 0).sequence;
    this.#states.set(fork, this.#stateOf(copy, fork));
    return { sequence: fork, copies: forks.map(({ copies }) => copies) };
  }

  /**
   * Forgets every position from `tokenCount` on, such as rejected drafts. What others share stays
   * theirs.
   * @throws VramError as {@link tryFork}.
   */
  truncate(sequence: number, tokenCount: number): void {
    this.#checkPosition(sequence, tokenCount);
    for (const sequences of this.sequences) sequences.truncate(sequence, tokenCount);
    this.#state(sequence).content.truncate(tokenCount);
  }

  /**
   * Evicts blocks `[index, index + count)` of a table for a KV policy. Their tokens leave a hole:
   * what the sequence computes from now on is not offered to others. Blocks that others share or
   * can hit stay whole.
   * @throws VramError `not-found`; `invalid-argument` where there are no such blocks.
   */
  dropBlocks(sequence: number, index: number, count = 1, group = 0): void {
    const table = this.table(sequence, group);
    checkInteger('block index', index, 0, table.blockCount);
    checkInteger('count', count, 0, table.blockCount - index);
    if (count === 0) return;
    const hole = table.positionAt(index * table.blockSize);
    itemAt(this.sequences, group).dropBlocks(sequence, index, count);
    this.#state(sequence).content.breakAt(hole);
  }

  /**
   * Evicts all held tokens of a group but `kept` and closes the gaps; see
   * {@link KvSequences.tryCompact}. The first evicted token is a hole as {@link dropBlocks} leaves.
   * @returns The moves, or `undefined` where the pool has too few free blocks.
   * @throws VramError as {@link KvSequences.tryCompact}.
   */
  tryCompact(sequence: number, kept: IndexList, group = 0): TokenMoves | undefined {
    const table = this.table(sequence, group);
    let gap = 0;
    while (gap < kept.length && kept[gap] === gap) gap++;
    const hole = gap < table.cachedTokenCount ? table.positionAt(gap) : Infinity;
    const moves = itemAt(this.sequences, group).tryCompact(sequence, kept);
    if (moves !== undefined) this.#state(sequence).content.breakAt(hole);
    return moves;
  }

  /**
   * Ends a sequence. Blocks that are cached stay hittable until they are handed out again.
   * @throws VramError `not-found` for an unknown sequence, so also for one freed before.
   */
  free(sequence: number): void {
    const { content } = this.#state(sequence);
    for (const sequences of this.sequences) sequences.free(sequence);
    content.end();
    this.#states.delete(sequence);
    if (this.#spares.length < MAX_SPARES) this.#spares.push(content);
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
   * hit them; sequences that hold them keep them, and have to compute them again.
   * @throws VramError `invalid-argument` for an id that is no block; nothing has changed then.
   */
  invalidate(ids: IndexList): void {
    for (let index = 0; index < ids.length; index++) {
      checkInteger('block id', at(ids, index), 1, this.pool.blockCount - 1);
    }
    for (let index = 0; index < ids.length; index++) this.cache.forget(at(ids, index));
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
    for (const sequences of this.sequences) sequences.check();
    for (const [sequence, { content, tables }] of this.#states) {
      content.check();
      const counts = new Set(tables.map(({ tokenCount }) => tokenCount));
      assertInvariant(counts.size === 1, `the groups of sequence ${sequence} differ in length`);
      assertInvariant(
        content.committedCount <= itemAt(tables, 0).tokenCount,
        `sequence ${sequence} has more certain tokens than tokens`,
      );
    }
  }

  get #lastGroup(): number {
    return this.#rules.length - 1;
  }

  #state(sequence: number): Sequence {
    return (
      this.#states.get(sequence) ??
      fail('not-found', `there is no sequence ${sequence}`, { sequence })
    );
  }

  #create(content: SequenceContent): number {
    let sequence = 0;
    for (const sequences of this.sequences) sequence = sequences.create();
    this.#states.set(sequence, this.#stateOf(content, sequence));
    return sequence;
  }

  #stateOf(content: SequenceContent, sequence: number): Sequence {
    return { content, tables: this.sequences.map((sequences) => sequences.table(sequence)) };
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
    for (let group = 0; group <= this.#lastGroup; group++) {
      const { blockSize, scale } = itemAt(this.#rules, group);
      needed += Math.ceil(end / blockSize) - this.#lookup.blockCount / scale;
    }
    return needed;
  }

  #reserve(sequence: number, state: Sequence, count: number, into: GroupMappings): boolean {
    this.#checkMappings(into);
    let missing = -this.pool.freeCount;
    for (let group = 0; group <= this.#lastGroup; group++) {
      const table = itemAt(state.tables, group);
      missing += itemAt(this.sequences, group).blocksNeededBy(table, count);
      if (missing > 0) missing -= this.#countReleased(state, group);
    }
    if (missing > 0) return false;
    this.#take(sequence, state, count, into, 0);
    return true;
  }

  /** Appends tokens that the caller has counted blocks for. */
  #take(
    sequence: number,
    { tables }: Sequence,
    count: number,
    into: GroupMappings,
    unmapped: number,
  ): void {
    for (let group = 0; group <= this.#lastGroup; group++) {
      const rule = itemAt(this.#rules, group);
      const sequences = itemAt(this.sequences, group);
      const table = itemAt(tables, group);
      const released = releasableBlocks(rule, table);
      if (released > 0) sequences.dropBlocks(sequence, rule.sinkBlocks, released);
      if (count > 0 && table.freeSlotCount > 0) this.#unpublishLast(table);
    }
    for (let group = 0; group <= this.#lastGroup; group++) {
      const mapping = mappingOf(into, group);
      const table = itemAt(tables, group);
      const mapped = itemAt(this.sequences, group).tryAppendTo(table, count, mapping, unmapped);
      assertInvariant(mapped !== undefined, 'blocks were free a moment ago');
    }
  }

  /** A cached block that is cut and written again no longer holds what it is cached for. */
  #unpublishLast(table: BlockTableView): void {
    const last = table.blockAt(table.blockCount - 1);
    if (this.cache.nodeOf(last) !== 0 && this.pool.referenceCount(last) === 1) {
      this.cache.forget(last);
    }
  }

  /** Blocks that nobody else holds among those that a window has passed. */
  #countReleased({ tables }: Sequence, group: number): number {
    const rule = itemAt(this.#rules, group);
    const table = itemAt(tables, group);
    const released = releasableBlocks(rule, table);
    let count = 0;
    for (let index = 0; index < released; index++) {
      if (this.pool.referenceCount(table.blockAt(rule.sinkBlocks + index)) === 1) count++;
    }
    return count;
  }

  #commit({ content, tables }: Sequence, tokens: Uint32Array, start: number, end: number): void {
    let done = start;
    while (done < end) {
      const depth = content.tipDepth;
      done += content.take(tokens, done, end);
      if (content.tipDepth > depth) this.#publish(content, tables);
    }
  }

  /** Makes the blocks that end at the tip hittable. */
  #publish({ tip, tipDepth, rank }: SequenceContent, tables: readonly BlockTableView[]): void {
    for (let group = 0; group <= this.#lastGroup; group++) {
      const { scale, blockSize } = itemAt(this.#rules, group);
      if (tipDepth % scale > 0) continue;
      const table = itemAt(tables, group);
      const first = (tipDepth / scale - 1) * blockSize;
      const index = table.cachedTokensBefore(first) / blockSize;
      const isHeld = index < table.blockCount && table.positionAt(index * blockSize) === first;
      if (isHeld) this.cache.attach(table.blockAt(index), tip, group, rank);
    }
  }

  #checkMappings(into: GroupMappings): void {
    const given = into instanceof SlotMapping ? 1 : into.length;
    checkInteger('count of mappings', given, this.#rules.length, this.#rules.length);
  }

  #checkPosition(sequence: number, position: number): void {
    const { tables } = this.#state(sequence);
    checkInteger('tokenCount', position, 0, itemAt(tables, 0).tokenCount);
    const isHeld = this.#rules.every((rule, group) =>
      canGoOnAt(rule, itemAt(tables, group), position),
    );
    if (isHeld) return;
    fail('invalid-argument', `a window has passed what the token at ${position} sees`, {
      sequence,
      position,
    });
  }
}

function mappingOf(into: GroupMappings, group: number): SlotMapping {
  return into instanceof SlotMapping ? into : itemAt(into, group);
}

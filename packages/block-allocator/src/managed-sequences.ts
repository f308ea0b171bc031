/**
 * Sequences of a manager: a table in each group, and one content, changed together.
 *
 * {@link KvCacheManager} documents the calls; here is what they do to the layers below. A call
 * first asks whether all groups have room, then changes all of them, so that none can fail half
 * way.
 *
 * Invariants ({@link ManagedSequences.check}): the tables of a sequence have seen as many tokens as
 * each other, and at least as many as are certain; a cached block that is written again is
 * forgotten first.
 */
import { assertInvariant, checkInteger, fail } from '@vramkit/core';
import type { BlockTableView } from './block-table.js';
import type { TokenMoves } from './compaction.js';
import { at, intAt, itemAt, type IndexList } from './index-array.js';
import type { ManagedFork } from './kv-cache-options.js';
import { canGoOnAt, releasableBlocks, type GroupRule } from './kv-groups.js';
import { KvSequences } from './kv-sequences.js';
import type { PrefixCache } from './prefix-cache.js';
import { ROOT_NODE } from './prefix-nodes.js';
import { SequenceContent, type SequenceContentState } from './sequence-content.js';
import type { SlotMapping } from './slot-mapping.js';

/** Most contents of freed sequences that are kept for new ones. */
const MAX_SPARES = 1024;

/** One sequence: its content, and its table in each group. */
export interface ManagedSequence {
  readonly content: SequenceContent;
  readonly tables: readonly BlockTableView[];
}

/** All sequences of a manager; see the notes of this module. */
export class ManagedSequences {
  /** Tables by group. */
  readonly sequences: readonly KvSequences[];
  readonly #cache: PrefixCache;
  readonly #rules: readonly GroupRule[];
  readonly #lastGroup: number;
  readonly #states = new Map<number, ManagedSequence>();
  readonly #suspended = new Map<number, ManagedSequence>();
  readonly #spares: SequenceContent[] = [];
  /** Blocks that each group needs for what is about to be appended. */
  readonly #needed: Int32Array;

  constructor(cache: PrefixCache, rules: readonly GroupRule[]) {
    this.#cache = cache;
    this.#rules = rules;
    this.#lastGroup = rules.length - 1;
    this.#needed = new Int32Array(rules.length);
    this.sequences = rules.map(({ blockSize }) => new KvSequences(cache.pool, { blockSize }));
  }

  /** How many there are, suspended ones included. */
  get size(): number {
    return this.#states.size + this.#suspended.size;
  }

  has(sequence: number): boolean {
    return this.#states.has(sequence);
  }

  /** A new sequence of given content, without tokens in its tables. */
  create(content: SequenceContent): number {
    let sequence = 0;
    for (const sequences of this.sequences) sequence = sequences.create();
    this.#states.set(sequence, this.#stateOf(content, sequence));
    return sequence;
  }

  /** A content to begin a sequence with; one of a freed sequence where there is one. */
  content(): SequenceContent {
    return this.#spares.pop() ?? new SequenceContent(this.#cache);
  }

  table(sequence: number, group = 0): BlockTableView {
    return itemAt(this.state(sequence).tables, checkInteger('group', group, 0, this.#lastGroup));
  }

  tryReserve(sequence: number, count: number, into: readonly SlotMapping[]): boolean {
    return this.#reserve(sequence, this.state(sequence), count, into);
  }

  commit(sequence: number, tokens: Uint32Array, start = 0, end = tokens.length): void {
    const state = this.state(sequence);
    checkInteger('end', end, checkInteger('start', start), tokens.length);
    const reserved = itemAt(state.tables, 0).tokenCount - state.content.committedCount;
    checkInteger('count of tokens', end - start, 0, reserved);
    this.commitTo(state, tokens, start, end);
  }

  tryAppend(
    sequence: number,
    tokens: Uint32Array,
    into: readonly SlotMapping[],
    start = 0,
    end = tokens.length,
  ): boolean {
    const state = this.state(sequence);
    checkInteger('end', end, checkInteger('start', start), tokens.length);
    const uncertain = itemAt(state.tables, 0).tokenCount - state.content.committedCount;
    checkInteger('uncertain tokens', uncertain, 0, 0);
    if (!this.#reserve(sequence, state, end - start, into)) return false;
    this.commitTo(state, tokens, start, end);
    return true;
  }

  tryFork(sequence: number, tokenCount?: number): ManagedFork | undefined {
    const { content, tables } = this.state(sequence);
    const end = tokenCount ?? itemAt(tables, 0).tokenCount;
    this.#checkPosition(sequence, end);
    let partial = 0;
    this.#rules.forEach(({ blockSize }, group) => {
      if (itemAt(tables, group).cachedTokensBefore(end) % blockSize > 0) partial++;
    });
    if (partial > this.#cache.pool.freeCount) return undefined;
    const forks = this.sequences.map((sequences) => sequences.fork(sequence, end));
    const copy = this.content();
    copy.copyFrom(content, end);
    const fork = itemAt(forks, 0).sequence;
    this.#states.set(fork, this.#stateOf(copy, fork));
    return { sequence: fork, copies: forks.map(({ copies }) => copies) };
  }

  truncate(sequence: number, tokenCount: number): void {
    this.#checkPosition(sequence, tokenCount);
    for (const sequences of this.sequences) sequences.truncate(sequence, tokenCount);
    this.state(sequence).content.truncate(tokenCount);
  }

  dropBlocks(sequence: number, index: number, count = 1, group = 0): void {
    const table = this.table(sequence, group);
    checkInteger('block index', index, 0, table.blockCount);
    checkInteger('count', count, 0, table.blockCount - index);
    if (count === 0) return;
    const hole = table.positionAt(index * table.blockSize);
    itemAt(this.sequences, group).dropBlocks(sequence, index, count);
    this.state(sequence).content.breakAt(hole);
  }

  tryCompact(sequence: number, kept: IndexList, group = 0): TokenMoves | undefined {
    const table = this.table(sequence, group);
    let gap = 0;
    while (gap < kept.length && kept[gap] === gap) gap++;
    const hole = gap < table.cachedTokenCount ? table.positionAt(gap) : Infinity;
    const moves = itemAt(this.sequences, group).tryCompact(sequence, kept);
    if (moves !== undefined) this.state(sequence).content.breakAt(hole);
    return moves;
  }

  free(sequence: number): void {
    const { content } = this.#suspended.get(sequence) ?? this.state(sequence);
    for (const sequences of this.sequences) sequences.free(sequence);
    content.end();
    this.#states.delete(sequence);
    this.#suspended.delete(sequence);
    if (this.#spares.length < MAX_SPARES) this.#spares.push(content);
  }

  suspend(sequence: number): void {
    const state = this.state(sequence);
    for (const sequences of this.sequences) sequences.park(sequence);
    this.#states.delete(sequence);
    this.#suspended.set(sequence, state);
  }

  tryResume(sequence: number): boolean {
    const state =
      this.#suspended.get(sequence) ?? fail('not-found', `sequence ${sequence} is not suspended`);
    const needed = state.tables.reduce((sum, { blockCount }) => sum + blockCount, 0);
    if (needed > this.#cache.pool.freeCount) return false;
    for (const sequences of this.sequences) sequences.tryUnpark(sequence);
    this.#suspended.delete(sequence);
    this.#states.set(sequence, state);
    return true;
  }

  republish(sequence: number): void {
    const { content, tables } = this.state(sequence);
    let node = content.tip;
    const { blockSize } = this.#cache.nodes;
    for (let depth = content.tipDepth; depth > 0; depth--) {
      const isWhole = depth * blockSize <= content.brokenAt;
      if (isWhole) this.#publish(node, depth, content.rank, tables);
      node = this.#cache.nodes.parentOf(node);
    }
  }

  invalidate(ids: IndexList): void {
    const damaged = new Set<number>();
    for (let index = 0; index < ids.length; index++) {
      damaged.add(checkInteger('block id', at(ids, index), 1, this.#cache.pool.blockCount - 1));
    }
    const nodes = new Set<number>();
    for (const id of damaged) this.#addFirstNode(id, nodes);
    for (const { content, tables } of this.#states.values()) {
      const position = Math.min(...tables.map((table) => firstPosition(table, damaged)));
      if (position === Infinity) continue;
      content.breakAt(position);
      for (const table of tables) {
        const first = Math.floor(table.cachedTokensBefore(position) / table.blockSize);
        for (const id of table.blocks.subarray(first)) this.#addFirstNode(id, nodes);
      }
    }
    this.#cache.forgetFrom(nodes);
  }

  /** Adds the node with which the tokens of a block begin, where it is cached. */
  #addFirstNode(id: number, nodes: Set<number>): void {
    let node = this.#cache.nodeOf(id);
    const { scale } = itemAt(this.#rules, this.#cache.groupOf(id));
    for (let depth = 1; depth < scale; depth++) node = this.#cache.nodes.parentOf(node);
    if (node !== ROOT_NODE) nodes.add(node);
  }

  /** Contents by handle, as plain data; tables are saved by {@link sequences}. */
  save(): readonly (readonly [number, SequenceContentState])[] {
    const numbers = new Map(this.#cache.liveNodes().map((node, index) => [node, index + 1]));
    return [...this.#states].map(([sequence, { content }]) => [
      sequence,
      content.save(numbers.get(content.tip) ?? ROOT_NODE),
    ]);
  }

  /** Takes over contents of a state, at nodes as {@link PrefixCache.restore} gave them. */
  restore(
    contents: readonly (readonly [number, SequenceContentState])[],
    nodes: readonly number[],
  ): void {
    for (const [sequence, state] of contents) {
      const content = this.content();
      content.restore(state, itemAt(nodes, checkInteger('tip', state.tip, 0, nodes.length - 1)));
      this.#states.set(sequence, this.#stateOf(content, sequence));
    }
  }

  check(): void {
    this.#cache.check();
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

  #reserve(
    sequence: number,
    state: ManagedSequence,
    count: number,
    into: readonly SlotMapping[],
  ): boolean {
    let missing = this.#countNeeded(state, count) - this.#cache.pool.freeCount;
    for (let group = 0; group <= this.#lastGroup && missing > 0; group++) {
      missing -= this.#countReleased(state, group);
    }
    if (missing > 0) return false;
    this.#take(sequence, state, count, into, 0);
    return true;
  }

  /** Appends tokens where the caller knows that blocks are free. */
  take(
    sequence: number,
    state: ManagedSequence,
    count: number,
    into: readonly SlotMapping[],
    unmapped: number,
  ): void {
    this.#countNeeded(state, count);
    this.#take(sequence, state, count, into, unmapped);
  }

  /** Blocks that `count` more tokens need in all groups; each group's share goes to the scratch. */
  #countNeeded({ tables }: ManagedSequence, count: number): number {
    let sum = 0;
    for (let group = 0; group <= this.#lastGroup; group++) {
      const needed = itemAt(this.sequences, group).blocksNeededBy(itemAt(tables, group), count);
      this.#needed[group] = needed;
      sum += needed;
    }
    return sum;
  }

  /** Appends what {@link #countNeeded} has counted. */
  #take(
    sequence: number,
    { tables }: ManagedSequence,
    count: number,
    into: readonly SlotMapping[],
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
      const needed = intAt(this.#needed, group);
      const sequences = itemAt(this.sequences, group);
      sequences.appendTo(itemAt(tables, group), count, needed, itemAt(into, group), unmapped);
    }
  }

  /** A cached block that is cut and written again no longer holds what it is cached for. */
  #unpublishLast(table: BlockTableView): void {
    const last = table.blockAt(table.blockCount - 1);
    if (this.#cache.nodeOf(last) !== 0 && this.#cache.pool.referenceCount(last) === 1) {
      this.#cache.forget(last);
    }
  }

  /** Blocks that nobody else holds among those that a window has passed. */
  #countReleased({ tables }: ManagedSequence, group: number): number {
    const rule = itemAt(this.#rules, group);
    const table = itemAt(tables, group);
    const released = releasableBlocks(rule, table);
    let count = 0;
    for (let index = 0; index < released; index++) {
      if (this.#cache.pool.referenceCount(table.blockAt(rule.sinkBlocks + index)) === 1) count++;
    }
    return count;
  }

  commitTo(
    { content, tables }: ManagedSequence,
    tokens: Uint32Array,
    start: number,
    end: number,
  ): void {
    let done = start;
    while (done < end) {
      const depth = content.tipDepth;
      done += content.take(tokens, done, end);
      if (content.tipDepth === depth) continue;
      this.#publish(content.tip, content.tipDepth, content.rank, tables);
    }
  }

  /** Makes the blocks that end with a node hittable, where the tables hold them. */
  #publish(node: number, depth: number, rank: number, tables: readonly BlockTableView[]): void {
    for (let group = 0; group <= this.#lastGroup; group++) {
      const { scale, blockSize } = itemAt(this.#rules, group);
      if (depth % scale > 0) continue;
      const table = itemAt(tables, group);
      const first = (depth / scale - 1) * blockSize;
      const token = table.cachedTokensBefore(first);
      // Where a policy has evicted tokens, a block may hold others than those of the node.
      if (!table.holdsRun(token, first, blockSize)) continue;
      const id = table.blockAt(token / blockSize);
      // A fork shares blocks of drafts; whoever accepts them first has published them.
      if (this.#cache.nodeOf(id) === 0) this.#cache.attach(id, node, group, rank);
    }
  }

  #checkPosition(sequence: number, position: number): void {
    const { tables } = this.state(sequence);
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

  /** @throws VramError `not-found`. */
  state(sequence: number): ManagedSequence {
    return (
      this.#states.get(sequence) ??
      fail('not-found', `there is no sequence ${sequence}`, { sequence })
    );
  }

  #stateOf(content: SequenceContent, sequence: number): ManagedSequence {
    return { content, tables: this.sequences.map((sequences) => sequences.table(sequence)) };
  }
}

/** Position of the first token in a block of `ids`, or Infinity. */
function firstPosition(table: BlockTableView, ids: ReadonlySet<number>): number {
  const index = table.blocks.findIndex((id) => ids.has(id));
  return index === -1 ? Infinity : table.positionAt(index * table.blockSize);
}

/**
 * The prefix cache: which block holds which full block of which prefix, for how long nobody needs
 * the block for something else.
 *
 * Two things meet here. {@link PrefixNodes} knows prefixes as such; the pool knows blocks. A node
 * has any number of blocks in each group of layers, because tables are append-only: two sequences
 * that computed the same prefix at the same time keep a block each. Any of them serves a hit.
 *
 * ```
 *   node ── group 0 ── block 7 ── block 9       two blocks with the same contents
 *        └─ group 1 ── block 4
 * ```
 *
 * A cached block is held by tables, or it is free and kept by the pool until it is handed out; then
 * the pool tells this cache, its keeper, and the block is forgotten. Which kept block goes first is
 * the pool's order by rank and age, or that of a `ReplacementPolicy`.
 *
 * A lookup is exact: the digest only finds candidates, and a node answers for its tokens, its extra
 * key and, through its parent, for everything before. A collision of digests costs a comparison.
 *
 * Length: lookups, blocks, events and the state all turn on the same three arrays.
 *
 * Invariants ({@link PrefixCache.check}): a block has a node exactly while it is in that node's
 * list of its group; a block has a rank above 0 exactly while it has a node; each block is a use of
 * its node.
 */
import {
  assertArgument,
  assertInvariant,
  checkInteger,
  fail,
  type ReplacementPolicy,
} from '@vramkit/core';
import { digestText, fastHasher, type BlockHasher } from './block-hasher.js';
import { MAX_RANK, type BlockKeeper, type BlockPool } from './block-pool.js';
import { PrefixEvents, type PrefixEvent } from './events.js';
import { intAt, itemAt } from './index-array.js';
import { HashIndex, type PrefixIndex } from './prefix-index.js';
import { BLOCK, NODE_WORDS, PrefixNodes, ROOT_NODE } from './prefix-nodes.js';
import { RadixIndex } from './radix-index.js';

/** Words of a block's record: its node, and the next block with the same contents. */
const BLOCK_WORDS = 2;
const NEXT = 1;

/** Options of {@link PrefixCache}. */
export interface PrefixCacheOptions {
  /** Groups of layers with blocks of their own. At most 255. Default: 1. */
  readonly groupCount?: number;
  /** Tokens of a node. Default: the pool's block size. */
  readonly blockSize?: number;
  /** Default: {@link fastHasher}. */
  readonly hasher?: BlockHasher;
  /**
   * What digests begin with. Processes that exchange digests need the same one; pass a random one
   * where nobody must be able to predict digests. Default: ''.
   */
  readonly seed?: string;
  /** `radix` also answers at token granularity. Default: 'hash'. */
  readonly index?: 'hash' | 'radix';
  /**
   * Most prefixes known at once, each about 32 bytes and 4 a token. Default: `blockCount`, and
   * twice that for more than one group.
   */
  readonly nodeCapacity?: number;
  /**
   * Who goes first among kept blocks; told of cached blocks by id. Default: the pool's order, least
   * recently freed within a rank.
   */
  readonly policy?: ReplacementPolicy<number>;
  /** Bytes of a block, for policies that weigh sizes. Default: 1. */
  readonly blockBytes?: number;
  /** Whether changes are recorded for {@link PrefixCache.takeEvents}. Default: false. */
  readonly recordEvents?: boolean;
}

/** A {@link PrefixCache} as plain data. */
export interface PrefixCacheState {
  readonly hasher: string;
  /** Parents first; `parent` is 0 for the root, else one more than the parent's index. */
  readonly nodes: readonly {
    readonly parent: number;
    readonly tokens: readonly number[];
    readonly extra: string;
  }[];
  /** `node` is one more than the index of the node. */
  readonly blocks: readonly {
    readonly id: number;
    readonly node: number;
    readonly group: number;
    readonly rank: number;
  }[];
}

/** Cached blocks by what they hold; see the notes of this module. */
export class PrefixCache implements BlockKeeper {
  readonly pool: BlockPool;
  readonly groupCount: number;
  /** Known prefixes. @internal */
  readonly nodes: PrefixNodes;
  readonly hasher: BlockHasher;
  readonly #index: PrefixIndex;
  readonly #policy: ReplacementPolicy<number> | undefined;
  readonly #blockBytes: number;
  readonly #events: PrefixEvents | undefined;
  /** First block of a node, groups from 1 on; that of group 0 is in the node's record. */
  readonly #heads: Int32Array;
  /** Two words a block: its node, and the next block with the same contents. */
  readonly #blocks: Int32Array;
  readonly #groupOf: Uint8Array;
  readonly #digest: Int32Array;
  #cachedCount = 0;
  /** The node created last while it has no child, or 0: looking below it would find nothing. */
  #barren = 0;

  /**
   * Becomes the keeper of `pool`.
   * @throws VramError `invalid-argument` where the pool has one, or an option is out of range.
   */
  constructor(pool: BlockPool, options: PrefixCacheOptions = {}) {
    this.pool = pool;
    this.groupCount = checkInteger('groupCount', options.groupCount ?? 1, 1, 255);
    this.hasher = options.hasher ?? fastHasher();
    assertArgument(this.hasher.words >= 2, 'a digest has at least two words');
    const { blockCount } = pool;
    const capacity = options.nodeCapacity ?? blockCount * (this.groupCount === 1 ? 1 : 2);
    this.nodes = new PrefixNodes({
      capacity,
      blockSize: options.blockSize ?? pool.blockSize,
      digestWords: this.hasher.words,
    });
    this.#digest = new Int32Array(this.hasher.words);
    this.hasher.root(options.seed ?? '', this.#digest);
    this.nodes.setRoot(this.#digest);
    this.#index =
      options.index === 'radix' ? new RadixIndex(this.nodes) : new HashIndex(this.nodes);
    this.#policy = options.policy;
    this.#blockBytes = options.blockBytes ?? 1;
    this.#events = options.recordEvents === true ? new PrefixEvents() : undefined;
    this.#heads = new Int32Array((this.groupCount - 1) * (capacity + 1));
    this.#blocks = new Int32Array(blockCount * BLOCK_WORDS);
    this.#groupOf = new Uint8Array(this.groupCount === 1 ? 0 : blockCount);
    pool.attachKeeper(this);
  }

  /** Blocks that can be hit. */
  get cachedCount(): number {
    return this.#cachedCount;
  }

  /** The child of `parent` that holds the full block of tokens at `start`, or 0. O(block size). */
  find(parent: number, tokens: Uint32Array, start: number, extra = ''): number {
    const { nodes } = this;
    const extraId = nodes.extraId(extra);
    this.#hash(parent, tokens, start, extra);
    return this.#index.find(parent, extraId, tokens, start, this.#digest);
  }

  /**
   * {@link find}, creating the node where it is missing. The caller gets one use of it, to be given
   * back by {@link release}.
   * @returns The node, or 0 where there is room for no more prefixes.
   */
  extend(parent: number, tokens: Uint32Array, start: number, extra = ''): number {
    const { nodes } = this;
    this.#hash(parent, tokens, start, extra);
    if (parent === ROOT_NODE || parent !== this.#barren) {
      const known = this.#index.find(parent, nodes.extraId(extra), tokens, start, this.#digest);
      if (known !== 0) {
        nodes.retain(known);
        return known;
      }
    }
    const node = nodes.create(parent, extra, tokens, start, this.#digest);
    if (node !== 0) this.#index.insert(node);
    this.#barren = node;
    return node;
  }

  /**
   * The cached block of `parent`'s next block that shares the most leading tokens with
   * `[start, start + count)`, or 0; only the radix index finds any but a full block.
   */
  nearest(
    parent: number,
    tokens: Uint32Array,
    start: number,
    count: number,
    extra = '',
  ): { readonly node: number; readonly tokenCount: number } | undefined {
    const extraId = this.nodes.extraId(extra);
    const node = this.#index.nearest(parent, extraId, tokens, start, count);
    if (node === 0) return undefined;
    return { node, tokenCount: this.nodes.commonTokens(node, tokens, start, count) };
  }

  /** Adds a use of a node that the caller knows to live. */
  retain(node: number): void {
    this.nodes.retain(node);
  }

  /** Gives a use of a node back; nodes without any are freed, from the leaf up. */
  release(node: number): void {
    const { nodes } = this;
    let current = node;
    while (current !== ROOT_NODE && nodes.release(current)) {
      const parent = nodes.parentOf(current);
      if (current === this.#barren) this.#barren = ROOT_NODE;
      this.#index.remove(current);
      nodes.remove(current);
      current = parent;
    }
  }

  /** A block that holds `node` in a group, or 0. O(1). */
  blockOf(node: number, group: number): number {
    if (group === 0) return intAt(this.nodes.records, node * NODE_WORDS + BLOCK);
    return intAt(this.#heads, (group - 1) * (this.nodes.capacity + 1) + node);
  }

  /** The node whose tokens block `id` holds, or 0. O(1). */
  nodeOf(id: number): number {
    return intAt(this.#blocks, id * BLOCK_WORDS);
  }

  /** Group of a cached block. */
  groupOf(id: number): number {
    return this.#groupOf[id] ?? 0;
  }

  /**
   * Says that block `id` holds the tokens of `node` for `group`, so that it can be hit. O(1).
   * @param rank What it is worth while nobody holds it. Default: 1.
   * @throws VramError `invalid-argument` for an id that is no block, `invariant` where the block is
   *   cached already.
   */
  attach(id: number, node: number, group = 0, rank = 1): void {
    checkInteger('rank', rank, 1, MAX_RANK);
    if (this.pool.rankOf(id) !== 0) fail('invariant', `block ${id} is cached already`, { id });
    assertInvariant(node !== ROOT_NODE, 'the empty prefix has no block');
    const first = this.blockOf(node, group);
    this.pool.rank(id, rank);
    this.nodes.retain(node);
    this.#blocks[id * BLOCK_WORDS] = node;
    this.#blocks[id * BLOCK_WORDS + NEXT] = first;
    if (this.groupCount > 1) this.#groupOf[id] = group;
    this.#setHead(node, group, id);
    this.#cachedCount++;
    this.#policy?.inserted(id, {
      sizeBytes: this.#blockBytes,
      reloadCost: this.nodes.depthOf(node) * this.nodes.blockSize,
    });
    if (first === 0 && this.#events !== undefined) this.#events.add(this.#stored(node, group));
  }

  /** Tells the replacement order that a cached block was hit. */
  touch(id: number): void {
    this.#policy?.touched(id);
  }

  /**
   * Forgets what a block holds; nobody will hit it. Does nothing for a block that is not cached.
   * A block in use stays with its holders. O(blocks of equal contents).
   */
  forget(id: number): void {
    if (this.nodeOf(id) === 0) return;
    this.#policy?.removed(id, 'explicit');
    this.#detach(id);
    this.pool.rank(id, 0);
  }

  /** Forgets all blocks of prefixes and of what continues them. O(nodes). */
  forgetFrom(prefixes: ReadonlySet<number>): void {
    if (prefixes.size === 0) return;
    const forgotten = new Set(prefixes);
    for (const node of this.liveNodes()) {
      if (!forgotten.has(node) && !forgotten.has(this.nodes.parentOf(node))) continue;
      forgotten.add(node);
      for (let group = 0; group < this.groupCount; group++) {
        for (let id = this.blockOf(node, group); id !== 0; id = this.blockOf(node, group)) {
          this.forget(id);
        }
      }
    }
  }

  /**
   * Forgets everything, where no block is in use.
   * @returns false, with nothing changed, where a block is held.
   */
  tryReset(): boolean {
    const { pool } = this;
    if (pool.freeCount < pool.blockCount - 1) return false;
    for (let id = 1; id < pool.blockCount; id++) {
      if (this.nodeOf(id) === 0) continue;
      this.#policy?.removed(id, 'explicit');
      this.#detach(id);
      pool.rank(id, 0);
    }
    this.#events?.add({ kind: 'cleared' });
    return true;
  }

  /** For the pool: the policy's choice among kept blocks. */
  chooseVictim(): number | undefined {
    return this.#policy?.chooseVictim((id) => this.pool.referenceCount(id) === 0);
  }

  /** For the pool: forgets a block that is handed out. */
  evicted(id: number): void {
    if (this.nodeOf(id) === 0) return;
    this.#policy?.removed(id, 'capacity');
    this.#detach(id);
  }

  /** Events since the last call; empty where they are not recorded. */
  takeEvents(): readonly PrefixEvent[] {
    return this.#events?.take() ?? [];
  }

  /** What can be hit now, as the events that would store it, parents first. O(nodes). */
  snapshot(): PrefixEvent[] {
    const live = this.liveNodes();
    const events: PrefixEvent[] = [];
    for (const node of live) {
      for (let group = 0; group < this.groupCount; group++) {
        if (this.blockOf(node, group) !== 0) events.push(this.#stored(node, group));
      }
    }
    return events;
  }

  /** All nodes beside the root, parents first; {@link save} numbers them so, from 1 on. */
  liveNodes(): number[] {
    const { nodes } = this;
    return [...nodes.live()].sort((a, b) => nodes.depthOf(a) - nodes.depthOf(b));
  }

  /** The digest of a node, as hexadecimal. */
  digestOf(node: number): string {
    return digestText(this.nodes.digests, this.nodes.digestAt(node), this.nodes.digestWords);
  }

  /** Prefixes and cached blocks as plain data. O(blocks + nodes). */
  save(): PrefixCacheState {
    const { nodes } = this;
    const live = this.liveNodes();
    const indexOf = new Map(live.map((node, index) => [node, index + 1]));
    const state = live.map((node): PrefixCacheState['nodes'][number] => ({
      parent: indexOf.get(nodes.parentOf(node)) ?? ROOT_NODE,
      tokens: [...nodes.tokens.subarray(node * nodes.blockSize, (node + 1) * nodes.blockSize)],
      extra: nodes.extraOf(node),
    }));
    const blocks: PrefixCacheState['blocks'][number][] = [];
    for (const [node, index] of indexOf) {
      for (let group = 0; group < this.groupCount; group++) {
        const first = blocks.length;
        for (let id = this.blockOf(node, group); id !== 0; id = this.#nextOf(id)) {
          blocks.push({ id, node: index, group, rank: this.pool.rankOf(id) });
        }
        // The last one attached is the first of the list.
        blocks.push(...blocks.splice(first).reverse());
      }
    }
    return { hasher: this.hasher.name, nodes: state, blocks };
  }

  /**
   * Knows prefixes and blocks of a state again. All blocks must be held, and none cached.
   * @returns A node for each of the state, from index 1 on, each with one use for the caller.
   * @throws VramError `invalid-argument` where the state is of another hasher, or is too large.
   */
  restore(state: PrefixCacheState): readonly number[] {
    const { hasher } = this;
    assertArgument(
      state.hasher === hasher.name && this.#cachedCount === 0,
      `a state of hasher ${state.hasher} cannot be restored with ${hasher.name}`,
    );
    checkInteger('count of nodes', state.nodes.length, 0, this.nodes.capacity);
    const nodes = [ROOT_NODE];
    for (const { parent, tokens, extra } of state.nodes) {
      checkInteger('tokens of a node', tokens.length, this.nodes.blockSize, this.nodes.blockSize);
      checkInteger('parent', parent, 0, nodes.length - 1);
      nodes.push(this.extend(itemAt(nodes, parent), Uint32Array.from(tokens), 0, extra));
    }
    for (const { id, node, group, rank } of state.blocks) {
      checkInteger('group', group, 0, this.groupCount - 1);
      this.attach(id, itemAt(nodes, checkInteger('node', node, 1, nodes.length - 1)), group, rank);
    }
    return nodes;
  }

  /**
   * Verifies every invariant of the head comment. O(blocks + nodes).
   * @throws VramError `invariant` naming the first block or node that breaks one.
   */
  check(): void {
    this.nodes.check();
    let listed = 0;
    for (const node of this.nodes.live()) {
      for (let group = 0; group < this.groupCount; group++) {
        for (let id = this.blockOf(node, group); id !== 0; id = this.#nextOf(id)) {
          const isRight = this.nodeOf(id) === node && this.groupOf(id) === group;
          assertInvariant(isRight, `block ${id} is listed by node ${node} and belongs elsewhere`);
          listed++;
        }
      }
    }
    let cached = 0;
    for (let id = 1; id < this.pool.blockCount; id++) {
      const isCached = this.nodeOf(id) !== 0;
      if (isCached) cached++;
      assertInvariant(
        isCached === this.pool.rankOf(id) > 0,
        `block ${id} has rank ${this.pool.rankOf(id)} and ${isCached ? 'a' : 'no'} node`,
      );
    }
    const counts = `${listed} listed, ${cached} with a node, count ${this.#cachedCount}`;
    assertInvariant(listed === cached && cached === this.#cachedCount, counts);
  }

  #hash(parent: number, tokens: Uint32Array, start: number, extra: string): void {
    const { digests, blockSize } = this.nodes;
    const parentAt = this.nodes.digestAt(parent);
    this.hasher.hash(digests, parentAt, tokens, start, blockSize, extra, this.#digest);
  }

  #nextOf(id: number): number {
    return intAt(this.#blocks, id * BLOCK_WORDS + NEXT);
  }

  #setHead(node: number, group: number, id: number): void {
    if (group === 0) this.nodes.records[node * NODE_WORDS + BLOCK] = id;
    else this.#heads[(group - 1) * (this.nodes.capacity + 1) + node] = id;
  }

  /** Takes a block out of its node's list and releases the node. */
  #detach(id: number): void {
    const node = this.nodeOf(id);
    const group = this.groupOf(id);
    const next = this.#nextOf(id);
    const first = this.blockOf(node, group);
    if (first === id) this.#setHead(node, group, next);
    else {
      let other = first;
      while (this.#nextOf(other) !== id) other = this.#nextOf(other);
      this.#blocks[other * BLOCK_WORDS + NEXT] = next;
    }
    this.#blocks[id * BLOCK_WORDS] = 0;
    this.#blocks[id * BLOCK_WORDS + NEXT] = 0;
    this.#cachedCount--;
    if (first === id && next === 0) {
      this.#events?.add({ kind: 'removed', digest: this.digestOf(node), group });
    }
    this.release(node);
  }

  #stored(node: number, group: number): PrefixEvent {
    const { nodes } = this;
    const { blockSize } = nodes;
    return {
      kind: 'stored',
      digest: this.digestOf(node),
      group,
      parent: this.digestOf(nodes.parentOf(node)),
      tokens: [...nodes.tokens.subarray(node * blockSize, (node + 1) * blockSize)],
      extra: nodes.extraOf(node),
    };
  }
}

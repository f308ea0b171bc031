/**
 * The lookup of a prompt: how much of it is cached in every group, what taking it would cost, and
 * taking it.
 *
 * The nodes of the prompt's blocks are walked once, one hash a block, until one is unknown; then
 * {@link HitSearch} finds the length from which all groups can go on. At least one token is always
 * left to compute, because its logits are what the caller is after. With a radix index and a single
 * full group the hit may end inside a block: its leading tokens are copied into a fresh one.
 *
 * One object serves all lookups, one after the other; a lookup leaves no garbage.
 */
import { extraKey, NO_KEYS, type ContentKeys } from './content-keys.js';
import { HitSearch } from './hit-search.js';
import { grown, itemAt, uintAt } from './index-array.js';
import type { GroupRule } from './kv-groups.js';
import type { KvSequences } from './kv-sequences.js';
import type { PrefixCache } from './prefix-cache.js';
import { ROOT_NODE } from './prefix-nodes.js';

/** Whether a group's contents of a node can be had from somewhere else than the device. */
export type Elsewhere = (node: number, group: number) => boolean;

const nowhere: Elsewhere = () => false;

/** The result of the last search, and what to do with it. */
export class PrefixLookup {
  /** Full blocks of the cache that are hit. */
  blockCount = 0;
  /** A block that begins with the tokens behind them, or 0. */
  partialBlock = 0;
  /** How many of them it begins with. */
  partialTokens = 0;
  readonly #cache: PrefixCache;
  readonly #rules: readonly GroupRule[];
  readonly #search: HitSearch;
  /** Whether a block must be in group 0 for anything behind it to be hit. */
  readonly #needsAll: boolean;
  #elsewhere: Elsewhere = nowhere;
  #nodes = new Uint32Array(64);
  #ids = new Uint32Array(64);
  /** The group whose blocks are in the scratch, or -1, and how many they are. */
  #collected = -1;
  #idCount = 0;

  constructor(cache: PrefixCache, rules: readonly GroupRule[]) {
    this.#cache = cache;
    this.#rules = rules;
    this.#search = new HitSearch(rules, cache.nodes.blockSize);
    const first = rules[0];
    this.#needsAll = first !== undefined && !first.isWindowed && first.scale === 1;
  }

  /** Tokens that are hit. */
  get tokenCount(): number {
    return this.blockCount * this.#cache.nodes.blockSize + this.partialTokens;
  }

  /** Node of the last full block that is hit, or the root. */
  get tip(): number {
    return this.blockCount === 0 ? ROOT_NODE : uintAt(this.#nodes, this.blockCount - 1);
  }

  /** Nothing is hit. */
  clear(): void {
    this.blockCount = 0;
    this.dropPartial();
    this.#collected = -1;
  }

  /** Leaves out the block that is hit in part. */
  dropPartial(): void {
    this.partialBlock = 0;
    this.partialTokens = 0;
  }

  /**
   * Finds the longest hit of `tokens`. O(tokens).
   * @param most Tokens that may be hit. Default: all but one.
   * @param elsewhere Whether contents without a block count all the same. Default: they do not.
   */
  search(
    tokens: Uint32Array,
    keys: ContentKeys,
    most = tokens.length - 1,
    elsewhere: Elsewhere = nowhere,
  ): void {
    this.clear();
    this.#elsewhere = elsewhere;
    const known = this.#walk(tokens, keys, most);
    this.blockCount =
      this.#needsAll && this.#rules.length === 1
        ? known
        : this.#search.longest(known, this.#hasBlock);
    if (this.#needsAll && this.#rules.length === 1) this.#searchPartial(tokens, keys, most);
  }

  /** Blocks of the hit that are free now, so that taking them lowers the free count. */
  countFree(): number {
    const { pool } = this.#cache;
    let free = 0;
    for (let group = 0; group < this.#rules.length; group++) {
      const count = this.#collect(group);
      for (let index = 0; index < count; index++) {
        if (pool.referenceCount(uintAt(this.#ids, index)) === 0) free++;
      }
    }
    return free;
  }

  /** What of the hit has no block on the device: nodes, group by group. */
  missing(): { readonly node: number; readonly group: number }[] {
    const missing: { node: number; group: number }[] = [];
    this.#rules.forEach((rule, group) => {
      const first = this.#firstNeeded(rule);
      for (let block = 0; block < this.blockCount / rule.scale; block++) {
        if (block >= rule.sinkBlocks && block < first) continue;
        const node = uintAt(this.#nodes, (block + 1) * rule.scale - 1);
        if (this.#cache.blockOf(node, group) === 0) missing.push({ node, group });
      }
    });
    return missing;
  }

  /** The hit blocks of all groups. */
  blocks(): Uint32Array {
    const ids: number[] = [];
    for (let group = 0; group < this.#rules.length; group++) {
      // Before the scratch is read: collecting may put a larger one in its place.
      const count = this.#collect(group);
      for (let index = 0; index < count; index++) ids.push(uintAt(this.#ids, index));
    }
    return Uint32Array.from(ids);
  }

  /** Gives the hit blocks to a new sequence of all groups. The caller has counted them. */
  adopt(sequence: number, sequences: readonly KvSequences[], rank: number): void {
    const cache = this.#cache;
    const { pool } = cache;
    const tokenCount = this.blockCount * cache.nodes.blockSize;
    for (let group = 0; group < this.#rules.length; group++) {
      const rule = itemAt(this.#rules, group);
      const target = itemAt(sequences, group);
      const count = this.#collect(group);
      for (let index = 0; index < count; index++) {
        const id = uintAt(this.#ids, index);
        pool.hold(id);
        cache.touch(id);
        if (pool.rankOf(id) < rank) pool.rank(id, rank);
      }
      const first = this.#firstNeeded(rule);
      const sinks = Math.min(rule.sinkBlocks, first);
      target.adopt(sequence, this.#ids, sinks);
      if (first > sinks) target.skip(sequence, first * rule.blockSize);
      target.adopt(sequence, this.#ids, count - sinks, sinks);
      if (count === 0) target.skip(sequence, tokenCount);
    }
  }

  /** Walks known nodes; stops where group 0 must have a block and has none. */
  #walk(tokens: Uint32Array, keys: ContentKeys, most: number): number {
    const cache = this.#cache;
    const { blockSize } = cache.nodes;
    const blocks = Math.floor(Math.max(0, most) / blockSize);
    this.#nodes = grown(this.#nodes, blocks);
    let node = ROOT_NODE;
    for (let index = 0; index < blocks; index++) {
      const start = index * blockSize;
      const extra = keys === NO_KEYS ? '' : extraKey(keys, start, start + blockSize);
      node = cache.find(node, tokens, start, extra);
      if (node === 0 || (this.#needsAll && !this.#has(node, 0))) return index;
      this.#nodes[index] = node;
    }
    return blocks;
  }

  #searchPartial(tokens: Uint32Array, keys: ContentKeys, most: number): void {
    const cache = this.#cache;
    const { blockSize } = cache.nodes;
    const start = this.blockCount * blockSize;
    const count = Math.min(blockSize, most - start);
    if (count <= 0) return;
    const extra = keys === NO_KEYS ? '' : extraKey(keys, start, start + blockSize);
    const found = cache.nearest(this.tip, tokens, start, count, extra);
    if (found === undefined || found.tokenCount === 0) return;
    const block = cache.blockOf(found.node, 0);
    if (block === 0) return;
    this.partialBlock = block;
    this.partialTokens = found.tokenCount;
  }

  /** Collects the blocks of the hit in a group into the scratch, unless they are there. */
  #collect(group: number): number {
    if (this.#collected === group) return this.#idCount;
    this.#collected = group;
    const rule = itemAt(this.#rules, group);
    const blocks = this.blockCount / rule.scale;
    const first = this.#firstNeeded(rule);
    const sinks = Math.min(rule.sinkBlocks, first);
    this.#ids = grown(this.#ids, blocks);
    let count = 0;
    for (let block = 0; block < blocks; block++) {
      if (block === sinks) block = first;
      if (block >= blocks) break;
      const node = uintAt(this.#nodes, (block + 1) * rule.scale - 1);
      this.#ids[count++] = this.#cache.blockOf(node, group);
    }
    this.#idCount = count;
    return count;
  }

  /** First block of a group, sinks apart, that is needed to go on behind the hit. */
  #firstNeeded(rule: GroupRule): number {
    const position = this.blockCount * this.#cache.nodes.blockSize;
    return Math.min(
      Math.floor(rule.firstVisible(position) / rule.blockSize),
      this.blockCount / rule.scale,
    );
  }

  #has(node: number, group: number): boolean {
    return this.#cache.blockOf(node, group) !== 0 || this.#elsewhere(node, group);
  }

  readonly #hasBlock = (index: number, group: number): boolean =>
    this.#has(uintAt(this.#nodes, index), group);
}

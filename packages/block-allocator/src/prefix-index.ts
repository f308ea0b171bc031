/**
 * How a cache finds the child of a node that holds given tokens: one interface, two structures with
 * the same answers.
 *
 * {@link HashIndex} is a table of chains by digest: constant time, a few bytes a node. The radix
 * index ({@link RadixIndex}, a file of its own) also knows which child shares the most leading
 * tokens with a block that none equals.
 */
import { intAt } from './index-array.js';
import { HASH, LINK, NODE_WORDS, type PrefixNodes } from './prefix-nodes.js';

/** Finds nodes by what they hold. It is told of each node once, and again before it is freed. */
export interface PrefixIndex {
  /**
   * The child of `parent` with exactly these tokens, or 0.
   * @param extraId Number of the extra key; see {@link PrefixNodes.extraId}.
   * @param digest Digest of the block that is looked for.
   */
  find(
    parent: number,
    extraId: number,
    tokens: Uint32Array,
    start: number,
    digest: Int32Array,
  ): number;
  /**
   * A child of `parent` that shares the most leading tokens with `[start, start + count)`, or 0
   * where there is no child, or the index cannot tell.
   */
  nearest(
    parent: number,
    extraId: number,
    tokens: Uint32Array,
    start: number,
    count: number,
  ): number;
  /** A node was created. */
  insert(node: number): void;
  /** A node is about to be freed. */
  remove(node: number): void;
}

/** Chains of nodes by digest, through the link word of their records. */
export class HashIndex implements PrefixIndex {
  readonly #nodes: PrefixNodes;
  readonly #buckets: Int32Array;
  readonly #mask: number;

  constructor(nodes: PrefixNodes) {
    this.#nodes = nodes;
    // Twice as many as nodes: a chain's further nodes are cache misses, and buckets are small.
    const bucketCount = 2 ** Math.ceil(Math.log2(2 * (nodes.capacity + 1)));
    this.#buckets = new Int32Array(bucketCount);
    this.#mask = bucketCount - 1;
  }

  find(
    parent: number,
    extraId: number,
    tokens: Uint32Array,
    start: number,
    digest: Int32Array,
  ): number {
    const { records } = this.#nodes;
    const low = intAt(digest, 0);
    const high = intAt(digest, 1);
    let node = intAt(this.#buckets, low & this.#mask);
    while (node !== 0) {
      const record = node * NODE_WORDS;
      if (
        records[record + HASH] === low &&
        records[record + HASH + 1] === high &&
        this.#nodes.matches(node, parent, extraId, tokens, start)
      ) {
        return node;
      }
      node = intAt(records, record + LINK);
    }
    return 0;
  }

  nearest(): number {
    return 0;
  }

  insert(node: number): void {
    const { records } = this.#nodes;
    const bucket = intAt(records, node * NODE_WORDS + HASH) & this.#mask;
    records[node * NODE_WORDS + LINK] = intAt(this.#buckets, bucket);
    this.#buckets[bucket] = node;
  }

  remove(node: number): void {
    const { records } = this.#nodes;
    const bucket = intAt(records, node * NODE_WORDS + HASH) & this.#mask;
    const next = intAt(records, node * NODE_WORDS + LINK);
    if (this.#buckets[bucket] === node) {
      this.#buckets[bucket] = next;
      return;
    }
    let other = intAt(this.#buckets, bucket);
    while (intAt(records, other * NODE_WORDS + LINK) !== node) {
      other = intAt(records, other * NODE_WORDS + LINK);
    }
    records[other * NODE_WORDS + LINK] = next;
  }
}

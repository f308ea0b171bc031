/**
 * The prefixes that a cache knows: a tree with a node for every distinct run of full blocks.
 *
 * A node stands for all tokens from the start of a sequence to the end of one block, so that equal
 * nodes mean equal prefixes, without hashing: its parent is exact, its tokens and its extra key are
 * stored, and a child keeps its parent alive. Who holds a block of that content, in which group and
 * how often, is the business of the cache above; a node can be without any.
 *
 * ```
 *   root ── [The cat sat on] ── [the mat and ate]
 *                           └── [the roof and ..]      blockSize 4, three nodes
 *
 *   record  [parent uses extra link hash hash block depth]      8 words a node
 * ```
 *
 * Node 0 is the root. `uses` counts children, sequences that ended here, and blocks; at zero the
 * node is freed, which may free its parent. Records are 32 bytes so that a lookup touches one cache
 * line for the record and one for 16 tokens.
 *
 * Invariants ({@link PrefixNodes.check}): `uses` is at least the number of children; depth is one
 * more than the parent's; free nodes and live nodes are all nodes.
 */
import { assertInvariant, checkInteger, fail } from '@vramkit/core';
import { at, intAt, uintAt, MAX_INDEX } from './index-array.js';

/** The empty prefix. */
export const ROOT_NODE = 0;

/** Words of a record, and what is where in it. */
export const NODE_WORDS = 8;
const PARENT = 0;
const USES = 1;
const EXTRA = 2;
/** Owned by whoever chains nodes: the hash index, and the list of free nodes. */
export const LINK = 3;
/** First of the two words that spread a digest over buckets. */
export const HASH = 4;
/** Owned by the cache: the first block of group 0. */
export const BLOCK = 6;
const DEPTH = 7;

const FREE = -1;

/** Sizes of {@link PrefixNodes}. */
export interface PrefixNodesOptions {
  /** Most nodes beside the root. */
  readonly capacity: number;
  /** Tokens of a block. */
  readonly blockSize: number;
  /** 32-bit words of a digest. */
  readonly digestWords: number;
}

/** Nodes in typed arrays; see the notes of this module. */
export class PrefixNodes {
  readonly capacity: number;
  readonly blockSize: number;
  /** Records by node. */
  readonly records: Int32Array;
  /** Tokens by node. */
  readonly tokens: Uint32Array;
  /** Where digests are: the records themselves where two words are all. */
  readonly digests: Int32Array;
  readonly digestWords: number;
  readonly #extras = new ExtraKeys();
  #freeNode = 0;
  #firstUnused = 1;
  #size = 0;

  constructor(options: PrefixNodesOptions) {
    this.capacity = checkInteger('capacity', options.capacity, 1, MAX_INDEX - 1);
    this.blockSize = options.blockSize;
    this.digestWords = options.digestWords;
    this.records = new Int32Array((this.capacity + 1) * NODE_WORDS);
    this.tokens = new Uint32Array((this.capacity + 1) * this.blockSize);
    this.digests =
      this.digestWords === 2
        ? this.records
        : new Int32Array((this.capacity + 1) * this.digestWords);
  }

  /** Nodes beside the root. */
  get size(): number {
    return this.#size;
  }

  /** Where in {@link digests} the digest of `node` begins. */
  digestAt(node: number): number {
    return this.digestWords === 2 ? node * NODE_WORDS + HASH : node * this.digestWords;
  }

  /** Sets the digest of the root. */
  setRoot(digest: Int32Array): void {
    this.#writeDigest(ROOT_NODE, digest);
  }

  parentOf(node: number): number {
    return intAt(this.records, node * NODE_WORDS + PARENT);
  }

  /** Blocks from the start of the sequence to the end of this one; 0 for the root. */
  depthOf(node: number): number {
    return intAt(this.records, node * NODE_WORDS + DEPTH);
  }

  usesOf(node: number): number {
    return intAt(this.records, node * NODE_WORDS + USES);
  }

  /** The extra key of a node, '' for none. */
  extraOf(node: number): string {
    return this.#extras.text(intAt(this.records, node * NODE_WORDS + EXTRA));
  }

  /** Number of an extra key, for comparisons; -1 for one that no node has. */
  extraId(extra: string): number {
    return extra === '' ? 0 : this.#extras.find(extra);
  }

  /** The number under which {@link extraOf} `node` is kept. */
  extraIdOf(node: number): number {
    return intAt(this.records, node * NODE_WORDS + EXTRA);
  }

  /** Whether `node` is the child of `parent` with these tokens and extra key. */
  matches(
    node: number,
    parent: number,
    extraId: number,
    tokens: Uint32Array,
    start: number,
  ): boolean {
    const record = node * NODE_WORDS;
    if (this.records[record + PARENT] !== parent) return false;
    if (this.records[record + EXTRA] !== extraId) return false;
    const { blockSize, tokens: known } = this;
    const own = node * blockSize;
    for (let index = 0; index < blockSize; index++) {
      if (known[own + index] !== tokens[start + index]) return false;
    }
    return true;
  }

  /** How many of the tokens `[start, start + count)` a node's block begins with. */
  commonTokens(node: number, tokens: Uint32Array, start: number, count: number): number {
    const own = node * this.blockSize;
    const most = Math.min(count, this.blockSize);
    let index = 0;
    while (index < most && this.tokens[own + index] === tokens[start + index]) index++;
    return index;
  }

  /**
   * A new child of `parent` with one use.
   * @returns The node, or 0 where {@link capacity} is reached.
   */
  create(
    parent: number,
    extra: string,
    tokens: Uint32Array,
    start: number,
    digest: Int32Array,
  ): number {
    const node = this.#take();
    if (node === 0) return 0;
    const record = node * NODE_WORDS;
    this.records[record + PARENT] = parent;
    this.records[record + USES] = 1;
    this.records[record + EXTRA] = extra === '' ? 0 : this.#extras.add(extra);
    this.records[record + BLOCK] = 0;
    this.records[record + DEPTH] = this.depthOf(parent) + 1;
    this.#writeDigest(node, digest);
    const { blockSize, tokens: known } = this;
    const own = node * blockSize;
    for (let index = 0; index < blockSize; index++) {
      known[own + index] = uintAt(tokens, start + index);
    }
    if (parent !== ROOT_NODE) this.retain(parent);
    return node;
  }

  /** Adds a use; the root needs none. */
  retain(node: number): void {
    if (node === ROOT_NODE) return;
    const uses = node * NODE_WORDS + USES;
    this.records[uses] = intAt(this.records, uses) + 1;
  }

  /**
   * Drops a use.
   * @returns Whether it was the last: the node must then leave every index and be {@link remove}d.
   */
  release(node: number): boolean {
    if (node === ROOT_NODE) return false;
    const uses = node * NODE_WORDS + USES;
    const left = intAt(this.records, uses) - 1;
    if (left < 0) fail('invariant', `node ${node} is released once too often`, { node });
    this.records[uses] = left;
    return left === 0;
  }

  /** Frees a node without uses. Its use of the parent is the caller's to release. */
  remove(node: number): void {
    const record = node * NODE_WORDS;
    const extraId = intAt(this.records, record + EXTRA);
    if (extraId !== 0) this.#extras.release(extraId);
    this.records[record + USES] = FREE;
    this.records[record + LINK] = this.#freeNode;
    this.#freeNode = node;
    this.#size--;
  }

  /** Whether `node` is in use. */
  isLive(node: number): boolean {
    return node > ROOT_NODE && node < this.#firstUnused && this.usesOf(node) !== FREE;
  }

  /** Every live node, in no order. */
  *live(): Generator<number> {
    for (let node = 1; node < this.#firstUnused; node++) if (this.isLive(node)) yield node;
  }

  /**
   * Verifies the invariants of the head comment. O(nodes).
   * @throws VramError `invariant` naming the first node that breaks one.
   */
  check(): void {
    const children = new Map<number, number>();
    let size = 0;
    for (const node of this.live()) {
      size++;
      const parent = this.parentOf(node);
      assertInvariant(
        parent === ROOT_NODE || this.isLive(parent),
        `node ${node} has the freed parent ${parent}`,
      );
      const depth = parent === ROOT_NODE ? 1 : this.depthOf(parent) + 1;
      assertInvariant(this.depthOf(node) === depth, `node ${node} has depth ${depth}`);
      children.set(parent, (children.get(parent) ?? 0) + 1);
      assertInvariant(this.usesOf(node) > 0, `node ${node} lives without a use`);
    }
    assertInvariant(size === this.#size, `${size} nodes live, size ${this.#size}`);
    for (const [node, count] of children) {
      const isCounted = node === ROOT_NODE || this.usesOf(node) >= count;
      assertInvariant(isCounted, `node ${node} has ${count} children and fewer uses`);
    }
  }

  #take(): number {
    let node = this.#freeNode;
    if (node !== 0) this.#freeNode = intAt(this.records, node * NODE_WORDS + LINK);
    else if (this.#firstUnused <= this.capacity) node = this.#firstUnused++;
    if (node !== 0) this.#size++;
    return node;
  }

  #writeDigest(node: number, digest: Int32Array): void {
    const record = node * NODE_WORDS + HASH;
    this.records[record] = intAt(digest, 0);
    this.records[record + 1] = intAt(digest, 1);
    if (this.digestWords === 2) return;
    this.digests.set(digest.subarray(0, this.digestWords), node * this.digestWords);
  }
}

/** Extra keys by number, from 1 up, counted by the nodes that have them. */
class ExtraKeys {
  readonly #ids = new Map<string, number>();
  readonly #texts: string[] = [''];
  readonly #uses: number[] = [1];
  readonly #free: number[] = [];

  find(text: string): number {
    return this.#ids.get(text) ?? -1;
  }

  text(id: number): string {
    return this.#texts[id] ?? '';
  }

  add(text: string): number {
    const known = this.#ids.get(text);
    const id = known ?? this.#free.pop() ?? this.#texts.length;
    this.#ids.set(text, id);
    this.#texts[id] = text;
    this.#uses[id] = (known === undefined ? 0 : at(this.#uses, id)) + 1;
    return id;
  }

  release(id: number): void {
    const left = at(this.#uses, id) - 1;
    this.#uses[id] = left;
    if (left > 0) return;
    this.#ids.delete(this.text(id));
    this.#free.push(id);
  }
}

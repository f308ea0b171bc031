/**
 * The radix index: the children of each node in a binary radix tree over the bits of their tokens
 * (PATRICIA, Morrison 1968, in the form called crit-bit).
 *
 * An inner entry names the first bit in which its two sides differ; a lookup tests those bits alone
 * and compares tokens once, at the leaf. The leaf that it ends at shares at least as many leading
 * bits with what is looked for as any other, which is what gives lookups at token granularity. The
 * key of a child is its extra key's number followed by its tokens.
 *
 * ```
 *   children of a node, keys 0 5 7 | 0 5 9 | 0 8 8        inner: first differing bit
 *                     (word 1)
 *                    /        \
 *              (word 2)      0 8 8
 *              /      \
 *           0 5 7    0 5 9
 * ```
 *
 * A pointer is 0 for nothing, positive for an inner entry, negative for a leaf, the node itself.
 * Trees of n children have n - 1 inner entries, so `capacity` entries are enough. Digests are not
 * used. Against the hash index it costs 20 bytes a node and a walk as deep as the tree of siblings
 * is high.
 */
import { assertInvariant, fail } from '@vramkit/core';
import { intAt, uintAt } from './index-array.js';
import type { PrefixIndex } from './prefix-index.js';
import { LINK, NODE_WORDS, type PrefixNodes } from './prefix-nodes.js';

const LEFT = 0;
const BIT = 2;
const ENTRY_WORDS = 3;

/** Binary radix trees of siblings; see the notes of this module. */
export class RadixIndex implements PrefixIndex {
  readonly #nodes: PrefixNodes;
  /** Inner entries: left pointer, right pointer, bit. */
  readonly #entries: Int32Array;
  #freeEntry = 0;
  #firstUnused = 1;

  constructor(nodes: PrefixNodes) {
    this.#nodes = nodes;
    this.#entries = new Int32Array((nodes.capacity + 1) * ENTRY_WORDS);
  }

  find(parent: number, extraId: number, tokens: Uint32Array, start: number): number {
    const { blockSize } = this.#nodes;
    const leaf = this.#leaf(parent, extraId, tokens, start, blockSize);
    if (leaf === 0) return 0;
    return this.#nodes.matches(leaf, parent, extraId, tokens, start) ? leaf : 0;
  }

  nearest(
    parent: number,
    extraId: number,
    tokens: Uint32Array,
    start: number,
    count: number,
  ): number {
    const leaf = this.#leaf(parent, extraId, tokens, start, count);
    return leaf !== 0 && this.#nodes.extraIdOf(leaf) === extraId ? leaf : 0;
  }

  insert(node: number): void {
    const nodes = this.#nodes;
    const parent = nodes.parentOf(node);
    const own = node * nodes.blockSize;
    const extraId = nodes.extraIdOf(node);
    nodes.records[node * NODE_WORDS + LINK] = 0;
    const sibling = this.#leaf(parent, extraId, nodes.tokens, own, nodes.blockSize);
    if (sibling === 0) {
      this.#setTop(parent, -node);
      return;
    }
    const bit = this.#firstDifference(node, sibling);
    let from = 0;
    let side = LEFT;
    let pointer = this.#top(parent);
    while (pointer > 0 && this.#bit(pointer) < bit) {
      from = pointer;
      side = this.#side(extraId, nodes.tokens, own, nodes.blockSize, this.#bit(pointer));
      pointer = this.#pointer(from, side);
    }
    const entry = this.#take();
    const ownSide = this.#side(extraId, nodes.tokens, own, nodes.blockSize, bit);
    this.#entries[entry * ENTRY_WORDS + BIT] = bit;
    this.#entries[entry * ENTRY_WORDS + LEFT + ownSide] = -node;
    this.#entries[entry * ENTRY_WORDS + LEFT + (1 - ownSide)] = pointer;
    this.#setPointer(parent, from, side, entry);
  }

  remove(node: number): void {
    const nodes = this.#nodes;
    const parent = nodes.parentOf(node);
    const own = node * nodes.blockSize;
    const extraId = nodes.extraIdOf(node);
    let [above, aboveSide, from, side] = [0, LEFT, 0, LEFT];
    let pointer = this.#top(parent);
    while (pointer > 0) {
      [above, aboveSide, from] = [from, side, pointer];
      side = this.#side(extraId, nodes.tokens, own, nodes.blockSize, this.#bit(pointer));
      pointer = this.#pointer(from, side);
    }
    if (pointer !== -node) fail('invariant', `node ${node} is no child of ${parent}`, { node });
    if (from === 0) {
      this.#setTop(parent, 0);
      return;
    }
    this.#setPointer(parent, above, aboveSide, this.#pointer(from, 1 - side));
    this.#entries[from * ENTRY_WORDS + LEFT] = this.#freeEntry;
    this.#freeEntry = from;
  }

  /** The leaf that shares the most leading bits with a key; bits beyond `count` tokens are 0. */
  #leaf(
    parent: number,
    extraId: number,
    tokens: Uint32Array,
    start: number,
    count: number,
  ): number {
    let pointer = this.#top(parent);
    while (pointer > 0) {
      const side = this.#side(extraId, tokens, start, count, this.#bit(pointer));
      pointer = this.#pointer(pointer, side);
    }
    return -pointer;
  }

  /** The value of one bit of a key: 0 left, 1 right. */
  #side(
    extraId: number,
    tokens: Uint32Array,
    start: number,
    count: number,
    position: number,
  ): number {
    const word = position >>> 5;
    if (word > count) return 0;
    const value = word === 0 ? extraId : uintAt(tokens, start + word - 1);
    return (value >>> (31 - (position & 31))) & 1;
  }

  /** The first bit in which the keys of two siblings differ. */
  #firstDifference(one: number, other: number): number {
    const { blockSize, tokens } = this.#nodes;
    let difference = this.#nodes.extraIdOf(one) ^ this.#nodes.extraIdOf(other);
    let word = 0;
    while (difference === 0) {
      assertInvariant(word < blockSize, 'two siblings hold the same tokens');
      difference =
        uintAt(tokens, one * blockSize + word) ^ uintAt(tokens, other * blockSize + word);
      word++;
    }
    return word * 32 + Math.clz32(difference);
  }

  #take(): number {
    const entry = this.#freeEntry;
    if (entry === 0) return this.#firstUnused++;
    this.#freeEntry = intAt(this.#entries, entry * ENTRY_WORDS + LEFT);
    return entry;
  }

  #bit(entry: number): number {
    return intAt(this.#entries, entry * ENTRY_WORDS + BIT);
  }

  #pointer(entry: number, side: number): number {
    return intAt(this.#entries, entry * ENTRY_WORDS + LEFT + side);
  }

  #setPointer(parent: number, entry: number, side: number, pointer: number): void {
    if (entry === 0) this.#setTop(parent, pointer);
    else this.#entries[entry * ENTRY_WORDS + LEFT + side] = pointer;
  }

  /** The tree of a node's children hangs at the link word of its record. */
  #top(parent: number): number {
    return intAt(this.#nodes.records, parent * NODE_WORDS + LINK);
  }

  #setTop(parent: number, pointer: number): void {
    this.#nodes.records[parent * NODE_WORDS + LINK] = pointer;
  }
}

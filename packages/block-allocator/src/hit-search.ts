/**
 * Hit search: the longest prefix from which every group can go on.
 *
 * The nodes of a prompt's blocks are known; which of them have blocks differs between groups. A
 * group accepts a length where the blocks that later tokens see are there: all of them for full
 * attention, the last few and the sinks for a window. The answer is the longest length that all
 * accept, found by shrinking it until nobody objects; each group scans its blocks once.
 */
import { intAt, itemAt } from './index-array.js';
import type { GroupRule } from './kv-groups.js';

/** Scratch of a search, kept between searches. */
export class HitSearch {
  readonly #rules: readonly GroupRule[];
  readonly #alignment: number;
  readonly #baseBlockSize: number;
  /** Per group: present blocks in a row that end at a block. */
  readonly #runs: Int32Array[];

  constructor(rules: readonly GroupRule[], baseBlockSize: number) {
    this.#rules = rules;
    this.#baseBlockSize = baseBlockSize;
    this.#alignment = rules.reduce((least, { scale }) => commonMultiple(least, scale), 1);
    this.#runs = rules.map(() => new Int32Array(64));
  }

  /**
   * The longest hit in blocks of the cache, at most `count`.
   * @param hasBlock Whether a group has a block that ends with the node of the `index`-th block.
   */
  longest(count: number, hasBlock: (index: number, group: number) => boolean): number {
    this.#rules.forEach(({ scale }, group) => {
      const blocks = Math.floor(count / scale);
      const runs = this.#runsOf(group, blocks);
      for (let block = 0; block < blocks; block++) {
        const before = block === 0 ? 0 : intAt(runs, block - 1);
        runs[block] = hasBlock((block + 1) * scale - 1, group) ? before + 1 : 0;
      }
    });
    let length = count - (count % this.#alignment);
    while (length > 0 && !this.#accepts(length)) length -= this.#alignment;
    return length;
  }

  #accepts(length: number): boolean {
    return this.#rules.every((rule, group) => {
      const runs = itemAt(this.#runs, group);
      const blocks = length / rule.scale;
      const position = length * this.#baseBlockSize;
      const first = Math.floor(rule.firstVisible(position) / rule.blockSize);
      const needed = blocks - Math.min(first, blocks);
      const sinks = Math.min(rule.sinkBlocks, blocks);
      const hasSinks = sinks === 0 || intAt(runs, sinks - 1) === sinks;
      return hasSinks && (needed === 0 || intAt(runs, blocks - 1) >= needed);
    });
  }

  #runsOf(group: number, blocks: number): Int32Array {
    const runs = itemAt(this.#runs, group);
    if (runs.length >= blocks) return runs;
    const larger = new Int32Array(Math.max(blocks, runs.length * 2));
    this.#runs[group] = larger;
    return larger;
  }
}

function commonMultiple(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y > 0) [x, y] = [y, x % y];
  return (a / x) * b;
}

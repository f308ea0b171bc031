/**
 * A naive model of pool and cache, for random tests of the manager: free lists are arrays, contents
 * are strings, tables are arrays of ids. It says which ids a call takes, what a prompt hits and
 * which block goes next. What it costs does not matter.
 */
import { MAX_RANK } from '../block-pool.js';
import type { KvGroup } from '../kv-groups.js';

/** A table of the model: block ids, and the position of each held token. */
export interface Table {
  ids: number[];
  positions: number[];
}

/** A sequence of the model. */
export interface Sequence {
  readonly id: number;
  readonly namespace: string;
  readonly rank: number;
  tokens: number[];
  committed: number;
  brokenAt: number;
  /** Tokens of the blocks whose prefixes it keeps known. */
  tip: number[];
  tables: Table[];
}

/** Tokens of a block of a group. */
export const size = (group: KvGroup, base: number): number => group.blockSize ?? base;

/** Whether the token at `position` sees the one at `other`, sinks by whole blocks. */
function sees(group: KvGroup, base: number, position: number, other: number): boolean {
  if (group.kind === 'full') return true;
  if (group.kind === 'chunked') {
    return Math.floor(other / group.chunkTokens) === Math.floor(position / group.chunkTokens);
  }
  const sinks = Math.ceil((group.sinkTokens ?? 0) / size(group, base)) * size(group, base);
  return other < sinks || other > position - group.windowTokens;
}

/** What the pool and the cache should be. */
export class Model {
  readonly references: number[];
  readonly ranks: number[];
  readonly contents: string[];
  readonly free: number[][] = Array.from({ length: MAX_RANK + 1 }, () => []);
  /** Blocks with a content, the latest first. */
  readonly holders = new Map<string, number[]>();
  readonly sequences: Sequence[] = [];

  constructor(
    blockCount: number,
    readonly base: number,
    readonly groups: readonly KvGroup[],
  ) {
    this.references = Array.from({ length: blockCount }, () => 0);
    this.ranks = Array.from({ length: blockCount }, () => 0);
    this.contents = Array.from({ length: blockCount }, () => '');
    for (let id = 1; id < blockCount; id++) this.free[0]?.push(id);
  }

  get freeIds(): number[] {
    return this.free.flat();
  }

  allocate(count: number): number[] {
    return Array.from({ length: count }, () => {
      const list = this.free.find((ids) => ids.length > 0) ?? [];
      const id = list.shift() ?? 0;
      this.forget(id);
      this.references[id] = 1;
      return id;
    });
  }

  release(ids: readonly number[]): void {
    for (const id of ids) this.references[id] = (this.references[id] ?? 0) - 1;
    for (const id of [...ids].reverse()) {
      if (this.references[id] === 0) this.free[this.ranks[id] ?? 0]?.push(id);
    }
  }

  hold(id: number): void {
    for (const list of this.free) if (list.includes(id)) list.splice(list.indexOf(id), 1);
    this.references[id] = (this.references[id] ?? 0) + 1;
  }

  forget(id: number): void {
    const content = this.contents[id] ?? '';
    const left = (this.holders.get(content) ?? []).filter((other) => other !== id);
    this.holders.set(content, left);
    this.contents[id] = '';
    this.ranks[id] = 0;
  }

  key(group: number, namespace: string, tokens: readonly number[]): string {
    return `${group}|${namespace}|${tokens.join()}`;
  }

  /** The longest hit, by trying every length. */
  hit(tokens: readonly number[], namespace: string): number {
    const most = Math.max(0, Math.floor((tokens.length - 1) / this.base) * this.base);
    for (let length = most; length > 0; length -= this.base) {
      if (!this.isKnown(tokens.slice(0, length), namespace)) continue;
      if (this.groups.every((_, group) => this.needed(length, group, tokens, namespace))) {
        return length;
      }
    }
    return 0;
  }

  /** Whether anything that begins with `tokens` is cached or running: nothing else is hit. */
  isKnown(tokens: readonly number[], namespace: string): boolean {
    const prefix = `${namespace}|${tokens.join()},`;
    const cached = [...this.holders].filter(([, ids]) => ids.length > 0);
    const ofSequences = this.sequences.map(({ tip, ...each }) => `${each.namespace}|${tip.join()}`);
    return [...cached.map(([key]) => key.slice(key.indexOf('|') + 1)), ...ofSequences].some(
      (text) => `${text},`.startsWith(prefix),
    );
  }

  /** Blocks that a group needs to go on behind `length` tokens; undefined where one is missing. */
  needed(
    length: number,
    group: number,
    tokens: readonly number[],
    namespace: string,
  ): { start: number; id: number }[] | undefined {
    const rule = this.groups[group] ?? { kind: 'full' };
    const block = size(rule, this.base);
    if (length % block > 0) return undefined;
    const found: { start: number; id: number }[] = [];
    for (let start = 0; start < length; start += block) {
      const isSeen = Array.from({ length: block }, (_, index) => start + index).some((other) =>
        sees(rule, this.base, length, other),
      );
      if (!isSeen) continue;
      const key = this.key(group, namespace, tokens.slice(0, start + block));
      const id = this.holders.get(key)?.[0];
      if (id === undefined) return undefined;
      found.push({ start, id });
    }
    return found;
  }

  /** Publishes blocks that end at newly certain tokens. */
  commit(sequence: Sequence, count: number): void {
    const from = sequence.committed;
    sequence.committed += count;
    const { base } = this;
    for (let end = from - (from % base) + base; end <= sequence.committed; end += base) {
      if (end > sequence.brokenAt) continue;
      sequence.tip = sequence.tokens.slice(0, end);
      this.groups.forEach((rule, group) => {
        const block = size(rule, base);
        const table = sequence.tables[group] ?? { ids: [], positions: [] };
        const token = table.positions.indexOf(end - block);
        const id = table.ids[token / block];
        if (end % block > 0 || token < 0 || id === undefined || this.contents[id] !== '') return;
        if (table.positions[token + block - 1] !== end - 1) return;
        const key = this.key(group, sequence.namespace, sequence.tokens.slice(0, end));
        this.contents[id] = key;
        this.ranks[id] = sequence.rank;
        this.holders.set(key, [id, ...(this.holders.get(key) ?? [])]);
      });
    }
  }

  /** Blocks that nobody sees any more, per group. */
  released(sequence: Sequence): number[][] {
    return this.groups.map((rule, group) => {
      const { ids, positions } = sequence.tables[group] ?? { ids: [], positions: [] };
      const block = size(rule, this.base);
      return ids.filter((_, index) => {
        const held = positions.slice(index * block, (index + 1) * block);
        const isFull = held.length === block;
        const next = sequence.tokens.length;
        return isFull && held.every((other) => !sees(rule, this.base, next, other));
      });
    });
  }
}

/**
 * Random use of sequences against a naive model: blocks are objects, tables are arrays of them, and
 * a token is a unique number. The model predicts exhaustion, sharing, contents and positions; after
 * each step every invariant is checked and every sequence is read back through memory that executed
 * the copies, moves and writes that calls handed out.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlockPool } from './block-pool.js';
import { KvSequences } from './kv-sequences.js';
import { SlotMapping, type BlockCopy } from './slot-mapping.js';

interface Token {
  readonly position: number;
  readonly value: number;
}
/** A block is its identity: two sequences share one where both hold the same object. */
type NaiveBlock = Readonly<Record<never, never>>;
interface NaiveSequence {
  readonly id: number;
  blocks: NaiveBlock[];
  tokens: Token[];
  tokenCount: number;
}

interface Step {
  readonly kind: 'create' | 'append' | 'fork' | 'truncate' | 'drop' | 'compact' | 'free';
  readonly pick: number;
  readonly amount: number;
  readonly mask: number;
}

class Run {
  readonly pool: BlockPool;
  readonly sequences: KvSequences;
  readonly memory = new Map<number, number>();
  readonly mapping = new SlotMapping();
  naive: NaiveSequence[] = [];
  #written = 0;

  constructor(
    readonly usable: number,
    readonly blockSize: number,
  ) {
    this.pool = new BlockPool({ blockCount: usable + 1, blockSize });
    this.sequences = new KvSequences(this.pool);
  }

  get free(): number {
    return this.usable - new Set(this.naive.flatMap((sequence) => sequence.blocks)).size;
  }

  step({ kind, pick, amount, mask }: Step): void {
    const target = this.naive[pick % Math.max(1, this.naive.length)];
    if (kind === 'create' || target === undefined) {
      this.naive.push({ id: this.sequences.create(), blocks: [], tokens: [], tokenCount: 0 });
    } else if (kind === 'append') this.append(target, amount);
    else if (kind === 'fork') this.fork(target, amount % (target.tokenCount + 1));
    else if (kind === 'truncate') this.truncate(target, amount % (target.tokenCount + 1));
    else if (kind === 'drop') this.drop(target, amount);
    else if (kind === 'compact') this.compact(target, mask);
    else {
      this.sequences.free(target.id);
      this.naive = this.naive.filter((sequence) => sequence !== target);
    }
    this.compare();
  }

  append(target: NaiveSequence, count: number): void {
    const used = target.tokens.length % this.blockSize;
    const last = target.blocks.at(-1);
    const isShared = this.naive.some(
      (other) => other !== target && last !== undefined && other.blocks.includes(last),
    );
    const copied = count > 0 && used > 0 && isShared ? 1 : 0;
    const fresh = Math.ceil((target.tokens.length + count) / this.blockSize) - target.blocks.length;
    expect(this.sequences.blocksNeeded(target.id, count)).toBe(fresh + copied);
    this.mapping.clear();
    const mapping = this.sequences.tryAppend(target.id, count, this.mapping);
    expect(mapping === undefined).toBe(fresh + copied > this.free);
    if (mapping === undefined) return;
    expect(mapping.copies.length).toBe(copied);
    this.execute(mapping.copies);
    if (copied === 1) target.blocks[target.blocks.length - 1] = {};
    mapping.slots.forEach((slot, index) => {
      const value = ++this.#written;
      this.memory.set(slot, value);
      expect(mapping.positions[index]).toBe(target.tokenCount);
      target.tokens.push({ position: target.tokenCount++, value });
    });
    for (let block = 0; block < fresh; block++) target.blocks.push({});
  }

  fork(target: NaiveSequence, tokenCount: number): void {
    const tokens = target.tokens.filter((token) => token.position < tokenCount);
    const partial = tokens.length % this.blockSize;
    const fork = this.sequences.tryFork(target.id, tokenCount);
    expect(fork === undefined).toBe(partial > 0 && this.free === 0);
    if (fork === undefined) return;
    expect(fork.copies.map((copy) => copy.tokens)).toEqual(partial > 0 ? [partial] : []);
    this.execute(fork.copies);
    const blocks = target.blocks.slice(0, Math.floor(tokens.length / this.blockSize));
    if (partial > 0) blocks.push({});
    this.naive.push({ id: fork.sequence, blocks, tokens, tokenCount });
  }

  truncate(target: NaiveSequence, tokenCount: number): void {
    this.sequences.truncate(target.id, tokenCount);
    target.tokens = target.tokens.filter((token) => token.position < tokenCount);
    target.blocks.length = Math.ceil(target.tokens.length / this.blockSize);
    target.tokenCount = tokenCount;
  }

  drop(target: NaiveSequence, amount: number): void {
    if (target.blocks.length === 0) return;
    const index = amount % target.blocks.length;
    this.sequences.dropBlock(target.id, index);
    target.blocks.splice(index, 1);
    target.tokens.splice(index * this.blockSize, this.blockSize);
  }

  compact(target: NaiveSequence, mask: number): void {
    const kept = target.tokens.flatMap((_, index) => ((mask >>> (index % 31)) & 1 ? [index] : []));
    const gap = kept.findIndex((token, index) => token !== index);
    const stays =
      gap === -1 ? Math.ceil(kept.length / this.blockSize) : Math.floor(gap / this.blockSize);
    const needed = Math.ceil(kept.length / this.blockSize) - stays;
    const moves = this.sequences.tryCompact(target.id, kept);
    expect(moves === undefined).toBe(needed > this.free);
    if (moves === undefined) return;
    const read = new Set(moves.from);
    for (const slot of moves.to) expect(read.has(slot)).toBe(false);
    moves.from.forEach((slot, index) => {
      this.memory.set(moves.to[index] ?? NaN, this.memory.get(slot) ?? NaN);
    });
    target.tokens = target.tokens.filter((_, index) => kept.includes(index));
    target.blocks.length = stays;
    for (let block = 0; block < needed; block++) target.blocks.push({});
  }

  execute(copies: readonly BlockCopy[]): void {
    for (const { from, to, tokens } of copies) {
      for (let offset = 0; offset < tokens; offset++) {
        const value = this.memory.get(from * this.blockSize + offset);
        this.memory.set(to * this.blockSize + offset, value ?? NaN);
      }
    }
  }

  compare(): void {
    this.sequences.check();
    expect(this.pool.freeCount).toBe(this.free);
    expect(this.sequences.sequenceCount).toBe(this.naive.length);
    const objects = new Map<number, NaiveBlock>();
    const holders = new Map<number, number>();
    for (const { id, blocks, tokens, tokenCount } of this.naive) {
      const table = this.sequences.table(id);
      expect(table.tokenCount).toBe(tokenCount);
      expect([...table.positions]).toEqual(tokens.map((token) => token.position));
      const values = tokens.map((_, index) => this.memory.get(table.slotAt(index)));
      expect(values).toEqual(tokens.map((token) => token.value));
      expect(table.blockCount).toBe(blocks.length);
      const gap = tokens.findIndex((token, index) => token.position !== index);
      expect(table.unbrokenTokenCount).toBe(gap === -1 ? tokens.length : gap);
      blocks.forEach((block, index) => {
        const blockId = table.blockAt(index);
        expect(objects.get(blockId) ?? block).toBe(block);
        objects.set(blockId, block);
        holders.set(blockId, (holders.get(blockId) ?? 0) + 1);
      });
    }
    expect(new Set(objects.values()).size).toBe(objects.size);
    for (const [id, count] of holders) expect(this.pool.referenceCount(id)).toBe(count);
  }
}

describe('KvSequences, random use', () => {
  it('equals the naive model after every step, and gives every block back', () => {
    const step: fc.Arbitrary<Step> = fc.record({
      kind: fc.constantFrom(
        ...(['append', 'append', 'append', 'fork', 'fork', 'truncate'] as const),
        ...(['drop', 'compact', 'create', 'free'] as const),
      ),
      pick: fc.nat(100),
      amount: fc.nat(30),
      mask: fc.integer(),
    });
    const sizes = fc.record({
      usable: fc.integer({ min: 1, max: 40 }),
      blockSize: fc.integer({ min: 1, max: 8 }),
    });
    fc.assert(
      fc.property(sizes, fc.array(step, { maxLength: 60 }), ({ usable, blockSize }, steps) => {
        const run = new Run(usable, blockSize);
        for (const each of steps) run.step(each);
        for (const { id } of run.naive) run.sequences.free(id);
        run.pool.check();
        expect(run.pool.freeCount).toBe(usable);
      }),
      { numRuns: 300 },
    );
  });
});

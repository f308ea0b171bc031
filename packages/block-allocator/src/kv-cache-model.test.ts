/**
 * Random use of the manager against a naive model, over every kind of group: free lists are arrays,
 * contents are strings, tables are arrays of ids. The model says which ids a call takes, what a
 * prompt hits and which block goes next. After each step the free order, every table and every
 * invariant are compared, and every sequence is read back through a memory that executes the copies
 * and writes.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlockPool, MAX_RANK } from './block-pool.js';
import { KvCacheManager } from './kv-cache-manager.js';
import type { KvGroup } from './kv-groups.js';
import { SlotMapping } from './slot-mapping.js';
import { Model, size, type Sequence, type Table } from './testing/naive-cache.js';

type Step =
  | {
      kind: 'start';
      family: number;
      length: number;
      namespace: string;
      rank: number;
      chunk: number;
    }
  | { kind: 'append' | 'draft' | 'fork' | 'truncate' | 'drop'; pick: number; amount: number }
  | { kind: 'free' | 'preempt' | 'accept'; pick: number; amount: number }
  | { kind: 'reset' }
  | { kind: 'restart' };

class Comparison {
  readonly model: Model;
  manager: KvCacheManager;
  readonly memory: Map<number, number>[];

  constructor(
    blockCount: number,
    readonly base: number,
    readonly groups: readonly KvGroup[],
  ) {
    this.model = new Model(blockCount, base, groups);
    this.manager = new KvCacheManager(new BlockPool({ blockCount, blockSize: base }), {
      groups,
      nodeCapacity: 4096,
    });
    this.memory = groups.map(() => new Map<number, number>());
  }

  step(step: Step): void {
    const { model, manager } = this;
    if (step.kind === 'start') this.start(step);
    else if (step.kind === 'restart') this.restart();
    else if (step.kind === 'reset') {
      const isIdle = model.references.every((count) => count === 0);
      expect(manager.cache.tryReset()).toBe(isIdle);
      // A reset forgets block by block, in order of ids, and each goes last in rank 0.
      if (isIdle) {
        const kept = model.free.slice(1).flat();
        for (let rank = 1; rank <= MAX_RANK; rank++) model.free[rank] = [];
        for (const id of kept) model.forget(id);
        model.free[0]?.push(...kept.sort((a, b) => a - b));
      }
    } else {
      const sequence = model.sequences[step.pick % Math.max(1, model.sequences.length)];
      if (sequence !== undefined) this.change(sequence, step.kind, step.amount);
    }
    this.compare();
  }

  start({ family, length, namespace, rank, chunk }: Extract<Step, { kind: 'start' }>): void {
    const { model, manager, base } = this;
    // Prompts of a family share a prefix whose length depends on the other one.
    const tokens = Array.from({ length }, (_, at) =>
      at < 4 + family * 3 ? at : family * 100 + at,
    );
    const keys = namespace === '' ? {} : { namespace };
    const given = Uint32Array.from(tokens);
    const hit = model.hit(tokens, namespace);
    expect(manager.match(given, keys)).toBe(hit);
    const count = Math.min(tokens.length - hit, chunk);
    const needed = this.groups.map((_, group) => model.needed(hit, group, tokens, namespace) ?? []);
    const taken = this.groups.map(
      (rule) => Math.ceil((hit + count) / size(rule, base)) - hit / size(rule, base),
    );
    const revived = needed.flat().filter(({ id }) => model.references[id] === 0).length;
    const cost = taken.reduce((sum, blocks) => sum + blocks, revived);
    const options = { keys, rank, appendTokens: chunk };
    expect(manager.blocksNeeded(given, options)).toBe(cost);
    const mappings = this.groups.map(() => new SlotMapping());
    const fits = cost <= model.freeIds.length;
    const id = manager.tryAllocate(given, mappings, options);
    expect(id !== undefined).toBe(fits);
    if (id === undefined) return;
    expect(manager.hitTokens(id)).toBe(hit);
    const sequence: Sequence = {
      ...{ id, namespace, rank, tokens: tokens.slice(0, hit), committed: hit, brokenAt: Infinity },
      tip: tokens.slice(0, hit),
      tables: needed.map((blocks, group) => ({
        ids: blocks.map((block) => block.id),
        positions: blocks.flatMap(({ start }) =>
          Array.from(
            { length: size(this.groups[group] ?? { kind: 'full' }, base) },
            (_, offset) => start + offset,
          ),
        ),
      })),
    };
    for (const { id: block } of needed.flat()) {
      model.hold(block);
      model.ranks[block] = Math.max(model.ranks[block] ?? 0, rank);
    }
    model.sequences.push(sequence);
    this.grow(sequence, tokens.slice(hit, hit + count), mappings);
    model.commit(sequence, count);
  }

  /** Goes on with another manager, made from this one's state as text. */
  restart(): void {
    const { groups, base } = this;
    const text = JSON.stringify(this.manager.save());
    const { blockCount } = this.manager.pool;
    const pool = new BlockPool({ blockCount, blockSize: base });
    this.manager = KvCacheManager.restore(JSON.parse(text), pool, { groups, nodeCapacity: 4096 });
    expect(JSON.stringify(this.manager.save())).toBe(text);
  }

  /** Appends to the model what the manager has appended. */
  grow(sequence: Sequence, tokens: readonly number[], mappings: readonly SlotMapping[]): void {
    const { model, base } = this;
    const start = sequence.tokens.length;
    model.released(sequence).forEach((ids, group) => {
      const table = sequence.tables[group];
      const block = size(this.groups[group] ?? { kind: 'full' }, base);
      if (table === undefined) return;
      model.release(ids);
      for (const id of ids) {
        const index = table.ids.indexOf(id);
        table.ids.splice(index, 1);
        table.positions.splice(index * block, block);
      }
      const last = table.ids.at(-1) ?? 0;
      const isPartial = table.positions.length % block > 0;
      const isCut = tokens.length > 0 && isPartial && model.contents[last] !== '';
      if (isCut && model.references[last] === 1) model.forget(last);
    });
    sequence.tokens.push(...tokens);
    sequence.tables.forEach((table, group) => {
      const block = size(this.groups[group] ?? { kind: 'full' }, base);
      const mapping = mappings[group] ?? new SlotMapping();
      const memory = this.memory[group] ?? new Map<number, number>();
      const last = table.ids.at(-1) ?? 0;
      const isPartial = table.positions.length % block > 0;
      const isCopied = tokens.length > 0 && isPartial && (model.references[last] ?? 0) > 1;
      const fresh = Math.ceil((table.positions.length + tokens.length) / block) - table.ids.length;
      const ids = model.allocate(fresh + (isCopied ? 1 : 0));
      expect(mapping.copies.length).toBe(isCopied ? 1 : 0);
      this.copy(group, mapping.copies);
      if (isCopied) {
        model.release([last]);
        table.ids[table.ids.length - 1] = ids.shift() ?? 0;
      }
      table.ids.push(...ids);
      table.positions.push(...tokens.map((_, index) => start + index));
      expect([...mapping.positions]).toEqual(tokens.map((_, index) => start + index));
      mapping.slots.forEach((slot, index) => memory.set(slot, tokens[index] ?? -1));
    });
  }

  copy(group: number, copies: SlotMapping['copies']): void {
    const block = size(this.groups[group] ?? { kind: 'full' }, this.base);
    const memory = this.memory[group] ?? new Map<number, number>();
    for (const { from, to, tokens } of copies) {
      for (let offset = 0; offset < tokens; offset++) {
        memory.set(to * block + offset, memory.get(from * block + offset) ?? -1);
      }
    }
  }

  change(
    sequence: Sequence,
    kind: Exclude<Step['kind'], 'start' | 'reset' | 'restart'>,
    amount: number,
  ): void {
    const { model, manager } = this;
    const uncertain = sequence.tokens.length - sequence.committed;
    if (kind === 'append' && uncertain === 0) this.append(sequence, amount, true);
    else if (kind === 'draft') this.append(sequence, amount, false);
    else if (kind === 'accept') {
      const count = Math.min(uncertain, amount);
      const accepted = sequence.tokens.slice(sequence.committed, sequence.committed + count);
      manager.commit(sequence.id, Uint32Array.from(accepted));
      model.commit(sequence, count);
    } else if (kind === 'truncate') this.truncate(sequence, amount % (sequence.tokens.length + 1));
    else if (kind === 'fork') this.fork(sequence, amount % (sequence.tokens.length + 1));
    else if (kind === 'drop') this.drop(sequence, amount);
    else if (kind === 'free' || kind === 'preempt') {
      if (kind === 'free') manager.free(sequence.id);
      else manager.preempt(sequence.id);
      for (const { ids } of sequence.tables) model.release(ids);
      model.sequences.splice(model.sequences.indexOf(sequence), 1);
    }
  }

  append(sequence: Sequence, count: number, isCertain: boolean): void {
    const { model, manager, base } = this;
    const next = Array.from({ length: count }, (_, index) => 5000 + ((count + index) % 3));
    const released = model.released(sequence);
    const regained = released.flat().filter((id) => model.references[id] === 1).length;
    let needed = 0;
    sequence.tables.forEach(({ ids, positions }, group) => {
      const block = size(this.groups[group] ?? { kind: 'full' }, base);
      const isShared = (model.references[ids.at(-1) ?? 0] ?? 0) > 1;
      const isCopied = count > 0 && positions.length % block > 0 && isShared;
      needed += Math.ceil((positions.length + count) / block) - ids.length + (isCopied ? 1 : 0);
    });
    const mappings = this.groups.map(() => new SlotMapping());
    const fits = isCertain
      ? manager.tryAppend(sequence.id, Uint32Array.from(next), mappings)
      : manager.tryReserve(sequence.id, count, mappings);
    expect(fits).toBe(needed <= model.freeIds.length + regained);
    if (!fits) return;
    this.grow(sequence, next, mappings);
    if (isCertain) model.commit(sequence, count);
  }

  /** Whether all groups hold what the token at `position` sees. */
  canGoOnAt(sequence: Sequence, position: number): boolean {
    return this.groups.every((rule, group) => {
      if (rule.kind === 'full') return true;
      const window = rule.kind === 'window' ? rule.windowTokens : 0;
      const first =
        rule.kind === 'window'
          ? Math.max(0, position - window + 1)
          : position - (position % rule.chunkTokens);
      const held = sequence.tables[group]?.positions ?? [];
      return Array.from({ length: position - first }, (_, index) => first + index).every((other) =>
        held.includes(other),
      );
    });
  }

  truncate(sequence: Sequence, position: number): void {
    const { model, manager, base } = this;
    if (!this.canGoOnAt(sequence, position)) {
      expect(() => manager.truncate(sequence.id, position)).toThrow('window has passed');
      return;
    }
    manager.truncate(sequence.id, position);
    sequence.tables.forEach((table, group) => {
      const block = size(this.groups[group] ?? { kind: 'full' }, base);
      table.positions = table.positions.filter((other) => other < position);
      model.release(table.ids.splice(Math.ceil(table.positions.length / block)));
    });
    sequence.tokens.length = position;
    this.cut(sequence, position);
  }

  fork(sequence: Sequence, position: number): void {
    const { model, manager, base } = this;
    if (!this.canGoOnAt(sequence, position)) {
      expect(() => manager.tryFork(sequence.id, position)).toThrow('window has passed');
      return;
    }
    const tables = sequence.tables.map(({ ids, positions }, group): Table => {
      const block = size(this.groups[group] ?? { kind: 'full' }, base);
      const kept = positions.filter((other) => other < position);
      return { ids: ids.slice(0, Math.ceil(kept.length / block)), positions: kept };
    });
    const isPartial = tables.map(
      ({ positions }, group) =>
        positions.length % size(this.groups[group] ?? { kind: 'full' }, base) > 0,
    );
    const fork = manager.tryFork(sequence.id, position);
    expect(fork !== undefined).toBe(isPartial.filter(Boolean).length <= model.freeIds.length);
    if (fork === undefined) return;
    tables.forEach((table, group) => {
      const last = isPartial[group] === true ? table.ids.pop() : undefined;
      for (const id of table.ids) model.hold(id);
      if (last !== undefined) table.ids.push(...model.allocate(1));
      expect(fork.copies[group]?.length).toBe(last === undefined ? 0 : 1);
      this.copy(group, [...(fork.copies[group] ?? [])]);
    });
    const tokens = sequence.tokens.slice(0, position);
    const child = { ...sequence, id: fork.sequence, tables, tokens };
    this.cut(child, position);
    model.sequences.push(child);
  }

  /** What truncation does to the tokens that are certain. */
  cut(sequence: Sequence, position: number): void {
    if (position <= sequence.brokenAt) {
      sequence.brokenAt = Infinity;
      if (position < sequence.committed) {
        sequence.tip = sequence.tip.slice(0, position - (position % this.base));
      }
    }
    sequence.committed = Math.min(sequence.committed, position);
  }

  drop(sequence: Sequence, amount: number): void {
    const group = this.groups.findIndex(({ kind }) => kind === 'full');
    const table = sequence.tables[group];
    if (table === undefined || table.ids.length === 0) return;
    const index = amount % table.ids.length;
    const block = size(this.groups[group] ?? { kind: 'full' }, this.base);
    sequence.brokenAt = Math.min(sequence.brokenAt, table.positions[index * block] ?? Infinity);
    this.manager.dropBlocks(sequence.id, index, 1, group);
    this.model.release(table.ids.splice(index, 1));
    table.positions.splice(index * block, block);
  }

  compare(): void {
    const { model, manager } = this;
    manager.check();
    expect([...manager.pool.freeIds()]).toEqual(model.freeIds);
    for (const { id, tables, tokens, committed } of model.sequences) {
      expect(manager.committedTokens(id)).toBe(committed);
      tables.forEach(({ ids, positions }, group) => {
        const table = manager.table(id, group);
        expect(table.tokenCount).toBe(tokens.length);
        expect([...table.blocks]).toEqual(ids);
        expect([...table.positions]).toEqual(positions);
        const read = positions.map((_, index) => this.memory[group]?.get(table.slotAt(index)));
        expect(read).toEqual(positions.map((position) => tokens[position]));
      });
    }
  }
}

const groupLists: readonly (readonly KvGroup[])[] = [
  [{ kind: 'full' }],
  [{ kind: 'full' }],
  [{ kind: 'window', windowTokens: 5 }],
  [{ kind: 'window', windowTokens: 7, sinkTokens: 3 }],
  [{ kind: 'chunked', chunkTokens: 6 }],
  [{ kind: 'full' }, { kind: 'window', windowTokens: 4 }],
  [{ kind: 'window', windowTokens: 9, sinkTokens: 1 }, { kind: 'full' }],
  [{ kind: 'full' }, { kind: 'chunked', chunkTokens: 8 }],
];

const target = { pick: fc.nat(9), amount: fc.nat(14) };
const oneOf = <K extends string>(...kinds: K[]) => fc.constantFrom(...kinds);
const steps: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: oneOf('start'),
      family: fc.nat(3),
      length: fc.nat(24),
      namespace: fc.constantFrom('', '', 'tenant'),
      rank: fc.constantFrom(1, 1, 2, 7),
      chunk: fc.constantFrom(100, 100, 5),
    }),
  },
  { weight: 5, arbitrary: fc.record({ kind: oneOf('append', 'draft', 'accept'), ...target }) },
  { weight: 3, arbitrary: fc.record({ kind: oneOf('fork', 'truncate', 'drop'), ...target }) },
  { weight: 2, arbitrary: fc.record({ kind: oneOf('free', 'preempt'), ...target }) },
  { weight: 1, arbitrary: fc.constantFrom<Step>({ kind: 'reset' }, { kind: 'restart' }) },
);

describe('KvCacheManager, random use', () => {
  it('equals the naive model after every step, and gives every block back', () => {
    const setting = fc.record({
      blocks: fc.integer({ min: 2, max: 28 }),
      base: fc.integer({ min: 1, max: 4 }),
      groups: fc.constantFrom(...groupLists),
      scale: fc.constantFrom(1, 1, 2),
      steps: fc.array(steps, { maxLength: 40 }),
    });
    fc.assert(
      fc.property(setting, ({ blocks, base, groups, scale, steps: list }) => {
        const scaled = groups.map((group, index) =>
          index === 1 ? { ...group, blockSize: base * scale } : group,
        );
        const run = new Comparison(blocks, base, scaled);
        for (const each of list) run.step(each);
        while (run.model.sequences.length > 0) run.step({ kind: 'free', pick: 0, amount: 0 });
        expect(run.manager.pool.freeCount).toBe(blocks - 1);
        run.step({ kind: 'reset' });
        expect(run.manager.cache.nodes.size).toBe(0);
      }),
      { numRuns: 10_000 },
    );
  }, 600_000);
});

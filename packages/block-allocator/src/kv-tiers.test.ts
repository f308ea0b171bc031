/**
 * Host and storage tiers: behaviours 48 to 54, with the bytes of every tier at hand, so that what
 * is read after a load is compared with what was written.
 */
import { LruPolicy } from '@vramkit/core/testing';
import { arc, lru } from '@vramkit/eviction';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlockPool } from './block-pool.js';
import { KvCacheManager } from './kv-cache-manager.js';
import type { KvGroup } from './kv-groups.js';
import { KvTiers, type KvTiersOptions, type TierTransfer } from './kv-tiers.js';
import { SlotMapping } from './slot-mapping.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });
const BLOCK = 4;
const full: KvGroup = { kind: 'full' };

function run(count: number, first = 0): Uint32Array {
  return Uint32Array.from({ length: count }, (_, index) => first + index);
}

/** A manager with tiers, and the tokens that blocks and slots hold. */
class Machine {
  readonly manager: KvCacheManager;
  readonly tiers: KvTiers;
  readonly bytes = { device: new Map<number, string>(), host: new Map(), storage: new Map() };

  constructor(blockCount: number, options: KvTiersOptions, groups: readonly KvGroup[] = [full]) {
    const pool = new BlockPool({ blockCount, blockSize: BLOCK });
    this.manager = new KvCacheManager(pool, { nodeCapacity: 256, groups });
    this.tiers = new KvTiers(this.manager, options);
  }

  /** Runs a prompt and frees it: its full blocks are cached. */
  visit(tokens: Uint32Array): number {
    const { sequences } = this.manager;
    const step = sequences.map(() => new SlotMapping());
    const sequence = this.manager.tryAllocate(tokens, step);
    if (sequence === undefined) throw new Error('no room');
    const hitTokens = this.manager.hitTokens(sequence);
    sequences.forEach(({ blockSize }, group) => {
      this.manager.table(sequence, group).blocks.forEach((id, index) => {
        const end = (index + 1) * blockSize;
        const held = tokens.subarray(end - blockSize, end).join();
        if (end <= hitTokens) expect(this.bytes.device.get(id)).toBe(held);
        this.bytes.device.set(id, held);
      });
    });
    this.manager.free(sequence);
    this.check();
    return hitTokens;
  }

  /** Cached blocks of a prompt, in order. */
  blocks(tokens: Uint32Array): Uint32Array {
    return this.manager.matchWith(Uint32Array.of(...tokens, 0), {}, () => false).present;
  }

  /** What another process stored, by content: no slot of this one was written. */
  readonly #foreign = new Map<number, string>();

  copy({ moves }: TierTransfer): void {
    for (const { content, from, to, source, target } of moves) {
      const foreign = from === 'storage' ? this.#foreign.get(content) : undefined;
      this.bytes[to].set(target, foreign ?? this.bytes[from].get(source) ?? '');
      if (to === 'storage') this.#foreign.delete(content);
    }
  }

  admit(tokens: Uint32Array): number[] {
    const contents = this.tiers.admit(tokens, Math.floor(tokens.length / BLOCK), 'storage');
    contents.forEach((content, index) => {
      this.#foreign.set(content, tokens.subarray(index * BLOCK, (index + 1) * BLOCK).join());
    });
    return contents;
  }

  store(tokens: Uint32Array): void {
    const transfer = this.tiers.prepareStore(this.blocks(tokens));
    if (transfer === undefined) throw new Error('no room');
    this.copy(transfer);
    this.tiers.complete(transfer, 'succeeded');
    this.check();
  }

  check(): void {
    this.manager.check();
    this.tiers.check();
  }
}

const prompt = run(13);
const cached = run(12);

describe('KvTiers', () => {
  it('behaviour 48: what is stored can be loaded once it succeeded; a failure leaves none', () => {
    const machine = new Machine(9, { host: { blocks: 4 } });
    const { tiers, manager } = machine;
    machine.visit(prompt);
    const transfer = tiers.prepareStore(machine.blocks(cached));
    if (transfer === undefined) throw new Error('no room');
    expect(transfer.moves.length).toBe(3);
    expect(tiers.count('host')).toBe(0);
    expect(tiers.prepareStore(machine.blocks(cached))?.moves).toEqual([]);
    machine.copy(transfer);
    const unknown = (): boolean => {
      throw new RangeError('who knows');
    };
    expect(() => tiers.complete(transfer, unknown)).toThrow(RangeError); // and is in flight still
    tiers.complete(transfer, (_, index) => index !== 1); // the second block fails
    machine.check();
    expect(tiers.count('host')).toBe(2);
    machine.visit(run(32, 500)); // pushes everything off the device
    expect(manager.match(prompt)).toBe(0);
    expect(tiers.lookup(prompt)).toBe(4);
    expect(() => tiers.complete(transfer, 'failed')).toThrow(error('invalid-argument'));
  });

  it('behaviour 49: a lookup gives the leading run only', () => {
    const machine = new Machine(9, { host: { blocks: 8 } });
    const { tiers } = machine;
    machine.visit(run(17));
    const blocks = machine.blocks(run(16));
    const transfer = tiers.prepareStore([0, 1, 3].map((index) => blocks[index] ?? 0));
    if (transfer === undefined) throw new Error('no room');
    machine.copy(transfer);
    tiers.complete(transfer, 'succeeded');
    expect(tiers.lookup(run(17))).toBe(16); // all four are on the device
    machine.visit(run(32, 500));
    expect(tiers.lookup(run(17))).toBe(8);
    expect(tiers.lookup(run(7))).toBe(4);
    expect(tiers.lookup(run(17, 1))).toBe(0);
  });

  it('loads what is missing into fresh blocks, which hit once the move has succeeded', () => {
    const machine = new Machine(9, { host: { blocks: 4 } });
    const { tiers, manager } = machine;
    machine.visit(prompt);
    machine.store(cached);
    machine.visit(run(32, 500));
    const transfer = tiers.prepareLoad(prompt);
    if (transfer === undefined) throw new Error('no room');
    expect(transfer.moves.map(({ from, to }) => `${from} ${to}`)).toEqual(
      Array.from({ length: 3 }, () => 'host device'),
    );
    expect(manager.match(prompt)).toBe(0);
    expect(tiers.prepareLoad(prompt)?.moves).toEqual([]); // on its way already
    machine.copy(transfer);
    tiers.complete(transfer, 'succeeded');
    machine.check();
    expect(machine.visit(prompt)).toBe(12);
  });

  it('behaviour 50: moving blocks are not evicted; where too few are evictable it refuses', () => {
    const machine = new Machine(9, { host: { blocks: 3 } });
    const { tiers, manager } = machine;
    machine.visit(prompt);
    const storing = tiers.prepareStore(machine.blocks(cached));
    if (storing === undefined) throw new Error('no room');
    expect(manager.pool.freeCount).toBe(5);
    expect(manager.tryAllocate(run(24, 900), new SlotMapping())).toBe(undefined);
    machine.visit(run(5, 100));
    expect(tiers.prepareStore(machine.blocks(run(4, 100)))).toBe(undefined); // all slots incoming
    machine.copy(storing);
    tiers.complete(storing, 'succeeded');
    machine.visit(run(32, 500));
    const loading = tiers.prepareLoad(prompt);
    if (loading === undefined) throw new Error('no room');
    machine.visit(run(5, 200));
    expect(tiers.prepareStore(machine.blocks(run(4, 200)))).toBe(undefined); // all are read
    machine.check();
    machine.copy(loading);
    tiers.complete(loading, 'succeeded');
    machine.store(run(4, 200));
    expect(tiers.count('host')).toBe(3);
  });

  it('behaviour 51: a touch renews; the policy that was handed in chooses', () => {
    const policy = new LruPolicy<number>();
    const machine = new Machine(9, { host: { blocks: 2, policy } });
    const { tiers } = machine;
    for (const first of [0, 100]) {
      machine.visit(run(5, first));
      machine.store(run(4, first));
    }
    machine.visit(run(32, 500));
    const loading = tiers.prepareLoad(run(5)); // touches the older one
    if (loading === undefined) throw new Error('no room');
    machine.copy(loading);
    tiers.complete(loading, 'succeeded');
    machine.visit(run(5, 200));
    machine.store(run(4, 200));
    machine.visit(run(32, 600));
    expect([tiers.lookup(run(5)), tiers.lookup(run(5, 100))]).toEqual([4, 0]);
    expect(policy.log.length).toBe(1);
  });

  it('behaviour 51: ARC keeps what was used twice through a scan; LRU does not', () => {
    const left = [lru<number>(), arc<number>()].map((policy) => {
      const machine = new Machine(12, { host: { blocks: 4, policy } });
      const load = (tokens: Uint32Array): void => {
        machine.visit(run(44, 10_000 + (tokens[0] ?? 0) * 100)); // pushes all off the device
        const transfer = machine.tiers.prepareLoad(tokens);
        if (transfer === undefined) throw new Error('no room');
        machine.copy(transfer);
        machine.tiers.complete(transfer, 'succeeded');
      };
      machine.visit(run(9));
      machine.store(run(8));
      load(run(9));
      for (let first = 100; first < 1000; first += 100) {
        machine.visit(run(5, first));
        machine.store(run(4, first));
        expect(machine.tiers.count('host')).toBeLessThanOrEqual(4);
      }
      machine.visit(run(44, 90_000));
      return machine.tiers.lookup(run(9));
    });
    expect(left).toEqual([0, 8]);
  });

  it('admits what another process stored, and loads it; a load that fails leaves a miss', () => {
    const machine = new Machine(9, { host: { blocks: 1 }, storage: { blocks: 3 } });
    const { tiers, manager } = machine;
    expect(tiers.admit(run(17), 2, 'storage').length).toBe(2);
    expect(tiers.lookup(run(17))).toBe(8);
    const contents = machine.admit(run(17)); // one more than there are slots
    expect(contents.length).toBe(3);
    machine.check();
    const transfer = tiers.prepareLoad(run(17));
    if (transfer === undefined) throw new Error('no room');
    expect(transfer.moves.map(({ content }) => content)).toEqual(contents);
    machine.copy(transfer);
    tiers.complete(transfer, (_, index) => index < 2);
    for (const content of contents) tiers.drop(content, 'storage');
    machine.check();
    expect([manager.match(run(17)), tiers.count('storage')]).toEqual([8, 0]);
    expect(machine.visit(run(17))).toBe(8); // compares what it hits
    expect(() => tiers.admit(run(17), 5, 'storage')).toThrow(error('invalid-argument'));
  });

  it('random stores, loads, spills and failures keep every invariant, under each policy', () => {
    const step = fc.record({
      kind: fc.constantFrom(...'visit visit store store load load spill admit end'.split(' ')),
      prompt: fc.nat(5),
      length: fc.integer({ min: 1, max: 24 }),
      fails: fc.nat(3),
    });
    const policies = fc.constantFrom(() => undefined, lru<number>, arc<number>);
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), policies, (steps, policy) => {
        const chosen = policy();
        const host = { blocks: 6, ...(chosen === undefined ? {} : { policy: chosen }) };
        const machine = new Machine(12, { host, storage: { blocks: 9 } });
        const { tiers, manager } = machine;
        const flights: TierTransfer[] = [];
        const end = (fails: number): void => {
          const transfer = flights.shift();
          if (transfer === undefined) return;
          machine.copy(transfer);
          tiers.complete(transfer, (_, index) => (index + fails) % 3 > 0 || fails === 0);
        };
        for (const { kind, prompt: family, length, fails } of steps) {
          const tokens = run(length, family * 1000);
          if (kind === 'end') end(fails);
          else if (kind === 'admit') machine.admit(tokens);
          else if (kind === 'visit') {
            if (manager.canAllocate(tokens)) machine.visit(tokens); // compares what it hits
          } else {
            const transfer =
              kind === 'store'
                ? tiers.prepareStore(machine.blocks(tokens))
                : kind === 'load'
                  ? tiers.prepareLoad(tokens)
                  : tiers.prepareSpill(length % 4);
            if (transfer !== undefined) flights.push(transfer);
          }
          machine.check();
          const matched = manager.match(tokens);
          expect(tiers.lookup(tokens)).toBeGreaterThanOrEqual(matched);
        }
        while (flights.length > 0) end(1);
        machine.check();
        expect(manager.pool.freeCount).toBe(11);
      }),
      { numRuns: 400 },
    );
  });

  it('behaviour 52: exactly the blocks of a transfer are written', () => {
    const machine = new Machine(9, { host: { blocks: 6 }, storage: { blocks: 6 } });
    machine.visit(prompt);
    machine.store(cached);
    const before = new Map(machine.bytes.host);
    machine.visit(run(9, 300));
    const transfer = machine.tiers.prepareStore(machine.blocks(run(8, 300)));
    if (transfer === undefined) throw new Error('no room');
    machine.copy(transfer);
    machine.tiers.complete(transfer, 'succeeded');
    for (const [slot, held] of before) expect(machine.bytes.host.get(slot)).toBe(held);
    expect(machine.bytes.host.size).toBe(5);
  });

  it('behaviour 52: blocks of two sizes come back as they were; a hit ends at the larger', () => {
    const large: KvGroup = { kind: 'full', blockSize: 2 * BLOCK };
    const machine = new Machine(16, { host: { blocks: 12 } }, [full, large]);
    const { tiers, manager } = machine;
    machine.visit(run(17));
    expect(machine.blocks(run(16)).length).toBe(4 + 2);
    machine.store(run(16));
    for (let first = 500; first < 900; first += 100) machine.visit(run(33, first));
    expect([manager.match(run(17)), tiers.lookup(run(17))]).toEqual([0, 16]);
    // Token 12 is in the middle of a block of eight: what lies before that block is loaded.
    expect(tiers.lookup(run(14))).toBe(8);
    for (const [length, moved, hit] of [[14, 2 + 1, 8] as const, [17, 1 + 1, 16] as const]) {
      const transfer = tiers.prepareLoad(run(length)) ?? { moves: [] };
      expect(transfer.moves.length).toBe(moved);
      machine.copy(transfer);
      tiers.complete(transfer, 'succeeded');
      expect(machine.visit(run(length))).toBe(hit);
    }
  });

  it('behaviour 53: after a failed load nothing hits what did not arrive', () => {
    const machine = new Machine(12, { host: { blocks: 4 } });
    const { tiers, manager } = machine;
    machine.visit(prompt);
    machine.store(cached);
    machine.visit(run(44, 500));
    machine.visit(run(5)); // the first block is on the device again
    const transfer = tiers.prepareLoad(prompt);
    if (transfer === undefined) throw new Error('no room');
    expect(transfer.moves.length).toBe(2);
    tiers.complete(transfer, 'failed');
    machine.check();
    expect(manager.match(prompt)).toBe(4);
    expect(tiers.lookup(prompt)).toBe(12); // the host still has them
    const running = manager.tryAllocate(prompt, new SlotMapping()) ?? 0;
    const table = [...manager.table(running).blocks];
    manager.invalidate(table.slice(1, 2)); // found damaged while it runs
    expect([...manager.table(running).blocks]).toEqual(table);
    expect(manager.match(prompt)).toBe(4);
    manager.tryAppend(running, run(7, 13), new SlotMapping());
    expect(manager.match(run(24))).toBe(4); // nothing behind the damage either
    manager.truncate(running, 4);
    manager.tryAppend(running, run(9, 4), new SlotMapping());
    expect(manager.match(prompt)).toBe(12); // computed anew
    machine.check();
  });

  it('a prefix that is partly here is not pushed out by the part that is loaded', () => {
    const machine = new Machine(7, { host: { blocks: 4 } });
    const { tiers } = machine;
    machine.visit(run(17));
    machine.store(run(16));
    machine.visit(run(17, 500).subarray(0, 9)); // evicts the tail of the first
    const transfer = tiers.prepareLoad(run(17));
    if (transfer === undefined) throw new Error('no room');
    machine.copy(transfer);
    tiers.complete(transfer, 'succeeded');
    machine.check();
    expect(machine.visit(run(17))).toBe(16);
  });

  it('spills what the host would lose next, and loads from storage', () => {
    const machine = new Machine(9, { host: { blocks: 3 }, storage: { blocks: 8 } });
    const { tiers } = machine;
    machine.visit(prompt);
    machine.store(cached);
    const spill = tiers.prepareSpill(2);
    if (spill === undefined) throw new Error('no room');
    expect(spill.moves.map(({ from, to }) => `${from} ${to}`)).toEqual([
      'host storage',
      'host storage',
    ]);
    machine.copy(spill);
    tiers.complete(spill, 'succeeded');
    machine.visit(run(13, 300));
    machine.store(run(12, 300)); // the host forgets the first prompt
    machine.visit(run(32, 500));
    expect([tiers.count('host'), tiers.count('storage')]).toEqual([3, 2]);
    expect(tiers.lookup(prompt)).toBe(8);
    const transfer = tiers.prepareLoad(prompt);
    if (transfer === undefined) throw new Error('no room');
    machine.copy(transfer);
    tiers.complete(transfer, 'succeeded');
    machine.check();
    expect(machine.visit(prompt)).toBe(8);
    tiers.drop(
      tiers.contentOf(machine.manager.cache.nodeOf(machine.blocks(run(4))[0] ?? 0)),
      'storage',
    );
    machine.check();
    expect(tiers.count('storage')).toBe(1);
  });
});

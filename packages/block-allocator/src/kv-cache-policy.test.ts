/**
 * What stays in the cache and what is said about it: pins, ranks and their decay, a replacement
 * policy handed in, events (behaviour 55) and metrics (behaviour 56).
 */
import { LruPolicy } from '@vramkit/core/testing';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fastHasher, packBlockKey, sha256Hasher } from './block-hasher.js';
import { BlockPool } from './block-pool.js';
import { PrefixReplica } from './events.js';
import { KvCacheManager } from './kv-cache-manager.js';
import type { AllocateOptions, KvCacheManagerOptions } from './kv-cache-options.js';
import { SlotMapping } from './slot-mapping.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });
const BLOCK = 4;

function run(count: number, first = 0): Uint32Array {
  return Uint32Array.from({ length: count }, (_, index) => first + index);
}

function make(
  blockCount: number,
  options: KvCacheManagerOptions & { rankLifetime?: number } = {},
): KvCacheManager {
  const { rankLifetime = Infinity } = options;
  return new KvCacheManager(new BlockPool({ blockCount, blockSize: BLOCK, rankLifetime }), options);
}

/** Runs a prompt and frees it. */
function visit(manager: KvCacheManager, tokens: Uint32Array, options?: AllocateOptions): void {
  const sequence = manager.tryAllocate(tokens, new SlotMapping(), options);
  if (sequence === undefined) throw new Error('no room');
  manager.free(sequence);
  manager.check();
}

describe('pins', () => {
  it('keep a prefix whatever the load, up to the cap, and can be taken back', () => {
    const manager = make(13, { maxPinnedBlocks: 3 });
    visit(manager, run(8));
    visit(manager, run(13, 100));
    const pin = manager.tryPin(run(8));
    expect(manager.pinnedCount).toBe(2);
    expect(manager.tryPin(run(12, 100))).toBe(undefined); // beyond the cap
    expect(manager.tryPin(run(9, 900))).toBe(undefined); // not cached
    const again = manager.tryPin(run(4));
    expect(manager.pinnedCount).toBe(2);
    visit(manager, run(40, 500));
    expect(manager.match(run(9))).toBe(8);
    expect(manager.cache.tryReset()).toBe(false);
    manager.unpin(pin ?? 0);
    expect(manager.pinnedCount).toBe(1);
    expect(() => manager.unpin(pin ?? 0)).toThrow(error('not-found'));
    visit(manager, run(44, 600));
    expect(manager.match(run(9))).toBe(4);
    expect(again).toBeDefined();
    manager.unpinAll();
    expect([manager.pinnedCount, manager.pool.freeCount]).toEqual([0, 12]);
  });
});

describe('a long prefix', () => {
  it('is pinned by its own blocks, whatever was looked up before', () => {
    const manager = make(400, { maxPinnedBlocks: 300 });
    const sequence = manager.tryAllocate(run(801), new SlotMapping()) ?? 0;
    const blocks = [...manager.table(sequence).blocks].slice(0, 200);
    expect(manager.tryPin(run(801))).toBeDefined();
    manager.free(sequence);
    expect(manager.pinnedCount).toBe(200);
    expect(blocks.map((id) => manager.pool.referenceCount(id))).toEqual(blocks.map(() => 1));
    manager.unpinAll();
    expect(manager.pool.freeCount).toBe(399);
  });
});

describe('ranks', () => {
  it('higher ranks go later, whatever their age; a hit raises the rank', () => {
    const manager = make(13);
    visit(manager, run(9), { rank: 3 });
    visit(manager, run(9, 100));
    visit(manager, run(9, 200));
    visit(manager, run(9, 100), { rank: 2 });
    visit(manager, run(32, 900)); // takes what has rank 0 and 1, and its own
    expect([manager.match(run(9)), manager.match(run(9, 100))]).toEqual([8, 8]);
    expect(manager.match(run(9, 200))).toBe(0);
    expect(() => manager.tryAllocate(run(1), new SlotMapping(), { rank: 8 })).toThrow(
      error('invalid-argument'),
    );
  });

  it('decay: with a lifetime a rank is lost step by step to what is used', () => {
    const lasting = make(13);
    const decaying = make(13, { rankLifetime: 4 });
    for (const manager of [lasting, decaying]) {
      visit(manager, run(9), { rank: 4 });
      for (let first = 1000; first < 4000; first += 100) visit(manager, run(21, first));
    }
    expect(lasting.match(run(9))).toBe(8);
    expect(decaying.match(run(9))).toBe(0);
  });
});

describe('a replacement policy', () => {
  it('chooses among kept blocks, and is told what was hit', () => {
    const policy = new LruPolicy<number>();
    const manager = make(9, { policy });
    visit(manager, run(9));
    visit(manager, run(9, 100));
    visit(manager, run(9)); // touches the first prompt
    visit(manager, run(17, 500));
    expect([manager.match(run(9)), manager.match(run(9, 100))]).toEqual([8, 0]);
    expect(policy.log.every((line) => line.endsWith('capacity'))).toBe(true);
    expect(manager.cache.tryReset()).toBe(true);
    expect(policy.order).toEqual([]);
  });

  it('is told of each cached block once, over random use', () => {
    const step = fc.record({ first: fc.nat(4), length: fc.integer({ min: 1, max: 20 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const policy = new LruPolicy<number>(); // throws where it is told twice
        const manager = make(8, { policy });
        for (const { first, length } of steps) visit(manager, run(length, first * 100));
        expect(policy.order.length).toBe(manager.cache.cachedCount);
      }),
      { numRuns: 200 },
    );
  });

  it('that names a block in use is a defect and is said so', () => {
    const manager = make(5, {
      policy: { inserted() {}, touched() {}, removed() {}, chooseVictim: () => 1 },
    });
    manager.tryAllocate(run(4), new SlotMapping());
    visit(manager, run(12, 100));
    expect(() => manager.tryAllocate(run(5, 200), new SlotMapping())).toThrow(error('invariant'));
  });
});

describe('events', () => {
  it('behaviour 55: stored once with parent and tokens, removed per content, cleared', () => {
    const manager = make(5, { recordEvents: true });
    visit(manager, run(9));
    const stored = manager.cache.takeEvents();
    expect(stored.map(({ kind }) => kind)).toEqual(['stored', 'stored']);
    const [first, second] = stored;
    if (first?.kind !== 'stored' || second?.kind !== 'stored') throw new Error('not stored');
    expect([first.tokens, second.tokens]).toEqual([[...run(4)], [...run(4, 4)]]);
    expect(second.parent).toBe(first.digest);
    expect(manager.cache.takeEvents()).toEqual([]);
    visit(manager, run(9)); // hits: nothing new
    expect(manager.cache.takeEvents()).toEqual([]);
    visit(manager, run(12, 100));
    expect(manager.cache.takeEvents().map(({ kind }) => kind)).toEqual([
      ...['removed', 'stored', 'stored', 'stored'],
    ]);
    manager.cache.tryReset();
    expect(manager.cache.takeEvents()).toEqual([{ kind: 'cleared' }]);
  });

  it.each([fastHasher(), sha256Hasher()])(
    'behaviour 55: replaying them gives the index of another process ($name)',
    (hasher) => {
      const step = fc.record({
        first: fc.nat(3),
        length: fc.integer({ min: 1, max: 24 }),
        reset: fc.nat(9),
      });
      const steps = fc.array(step, { maxLength: 30 });
      const groups = fc.constantFrom<NonNullable<KvCacheManagerOptions['groups']>>(
        [{ kind: 'full' }],
        [{ kind: 'full' }, { kind: 'window', windowTokens: 6 }],
      );
      fc.assert(
        fc.property(steps, groups, (list, kinds) => {
          const seed = 'shared';
          const manager = make(14, { recordEvents: true, hasher, seed, groups: kinds });
          const replica = new PrefixReplica();
          for (const { first, length, reset } of list) {
            const step = kinds.map(() => new SlotMapping());
            const sequence = manager.tryAllocate(run(length, first * 100), step);
            if (sequence !== undefined) manager.free(sequence);
            if (reset === 0) manager.cache.tryReset();
            replica.apply(manager.cache.takeEvents());
            const held = manager.cache
              .snapshot()
              .flatMap((each) =>
                each.kind === 'stored' ? [packBlockKey(each.digest, each.group)] : [],
              );
            expect(replica.keys()).toEqual(held.sort());
            if (kinds.length > 1) continue;
            const query = run(25, first * 100);
            const source = { hasher, seed, blockSize: BLOCK };
            expect(replica.match(query, source) * BLOCK).toBe(manager.match(query));
          }
          const second = new PrefixReplica();
          second.apply(manager.cache.snapshot());
          expect(second.keys()).toEqual(replica.keys());
        }),
        { numRuns: 100 },
      );
    },
  );

  it('that nobody takes are dropped, and say so', () => {
    const manager = make(40_000, { recordEvents: true });
    for (let first = 0; first < 3; first++) visit(manager, run(100_001, first * 200_000));
    const [lost] = manager.cache.takeEvents();
    expect(lost).toEqual({ kind: 'lost' });
    expect(() => new PrefixReplica().apply([{ kind: 'lost' }])).toThrow(error('corrupt-data'));
    expect(() => new PrefixReplica().apply([{ kind: 'removed', digest: 'x', group: 0 }])).toThrow(
      error('invariant'),
    );
  });
});

describe('metrics', () => {
  it('behaviour 56: hit rate of the last requests; what was preempted does not count', () => {
    const manager = make(40, { metricsWindow: 2 });
    visit(manager, run(9));
    expect(manager.metrics()).toMatchObject({ requests: 1, queryTokens: 9, hitTokens: 0 });
    visit(manager, run(9));
    expect(manager.metrics().recentHitRate).toBeCloseTo(8 / 18);
    visit(manager, run(9));
    expect(manager.metrics().recentHitRate).toBeCloseTo(16 / 18);
    const sequence = manager.tryAllocate(run(9), new SlotMapping()) ?? 0;
    const before = manager.metrics();
    manager.preempt(sequence);
    visit(manager, run(9), { isResumed: true });
    const after = manager.metrics();
    expect(after).toEqual({ ...before, preemptions: 1, resumed: 1, resumedHitTokens: 8, usage: 0 });
    expect([after.requests, after.hitTokens]).toEqual([4, 24]);
    expect(after.cachedBlocks).toBe(2);
  });

  it('behaviour 56: switched off, nothing is counted', () => {
    const manager = make(40, { metricsWindow: 0 });
    visit(manager, run(9));
    visit(manager, run(9));
    expect(manager.metrics()).toMatchObject({ requests: 0, hitTokens: 0, recentHitRate: 0 });
  });

  it('counts the leading blocks that running sequences share', () => {
    const manager = make(40);
    const sequences = [100, 200, 300].map(
      (own) =>
        manager.tryAllocate(Uint32Array.of(...run(8), ...run(5, own)), new SlotMapping()) ?? 0,
    );
    expect(manager.commonBlocks(sequences)).toBe(2);
    expect(manager.commonBlocks(sequences.slice(0, 1))).toBe(4);
    expect(manager.commonBlocks([])).toBe(0);
  });
});

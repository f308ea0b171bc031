/**
 * The manager, behaviour by behaviour: prefill, decode and sharing (17 to 24), eviction order and
 * pressure (25 to 31), numbered as in the project's list of what block managers are held against.
 */
import { describe, expect, it } from 'vitest';
import { BlockPool } from './block-pool.js';
import { KvCacheManager } from './kv-cache-manager.js';
import type { KvCacheManagerOptions } from './kv-cache-options.js';
import { SlotMapping } from './slot-mapping.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });

/** Tokens `first ..` in a row. */
function run(count: number, first = 0): Uint32Array {
  return Uint32Array.from({ length: count }, (_, index) => first + index);
}

function make(blockCount = 11, options: KvCacheManagerOptions = {}, blockSize = 4): KvCacheManager {
  return new KvCacheManager(new BlockPool({ blockCount, blockSize }), options);
}

/** Allocates where there must be room. */
function start(
  manager: KvCacheManager,
  tokens: Uint32Array,
  ...[options]: [Parameters<KvCacheManager['tryAllocate']>[2]?]
): number {
  const sequence = manager.tryAllocate(tokens, new SlotMapping(), options);
  manager.check();
  if (sequence === undefined) throw new Error('no room');
  return sequence;
}

function append(manager: KvCacheManager, sequence: number, tokens: Uint32Array): SlotMapping {
  const mapping = new SlotMapping();
  expect(manager.tryAppend(sequence, tokens, mapping)).toBe(true);
  manager.check();
  return mapping;
}

const blocksOf = (manager: KvCacheManager, sequence: number): number[] => [
  ...manager.table(sequence).blocks,
];

describe('prefill, decode, sharing', () => {
  it('behaviour 17: a cold prompt of 3 full blocks and a partial one takes 4, caches 3', () => {
    const manager = make();
    const mapping = new SlotMapping();
    const sequence = manager.tryAllocate(run(14), mapping) ?? 0;
    expect(blocksOf(manager, sequence)).toEqual([1, 2, 3, 4]);
    expect(manager.cache.cachedCount).toBe(3);
    expect(manager.hitTokens(sequence)).toBe(0);
    expect([1, 2, 3, 4].map((id) => manager.pool.referenceCount(id))).toEqual([1, 1, 1, 1]);
    expect([...mapping.slots]).toEqual([...run(14, 4)]);
    expect([...mapping.positions]).toEqual([...run(14)]);
    manager.check();
  });

  it('behaviour 18: a request with the same prefix shares 3 blocks, allocates its tail', () => {
    const manager = make();
    start(manager, run(14));
    const tokens = Uint32Array.of(...run(12), 90, 91, 92);
    const mapping = new SlotMapping();
    const second = manager.tryAllocate(tokens, mapping) ?? 0;
    expect(manager.hitTokens(second)).toBe(12);
    expect(blocksOf(manager, second)).toEqual([1, 2, 3, 5]);
    expect([1, 2, 3, 5].map((id) => manager.pool.referenceCount(id))).toEqual([2, 2, 2, 1]);
    expect([...mapping.positions]).toEqual([12, 13, 14]);
    expect([...mapping.slots]).toEqual([20, 21, 22]);
    manager.check();
  });

  it('behaviour 19: a prefix hits after its owner is freed, and leaves the free list then', () => {
    const manager = make();
    manager.free(start(manager, run(14)));
    expect(manager.pool.freeCount).toBe(10);
    expect(manager.match(run(14))).toBe(12);
    const second = start(manager, run(14));
    expect(manager.hitTokens(second)).toBe(12);
    expect(blocksOf(manager, second).slice(0, 3)).toEqual([1, 2, 3]);
    expect([...manager.pool.freeIds()]).not.toContain(1);
    expect(manager.pool.freeCount).toBe(6);
  });

  it('behaviour 20: a prompt that is cached whole leaves at least one token to compute', () => {
    const manager = make();
    start(manager, run(8));
    expect(manager.match(run(8))).toBe(4);
    expect(manager.match(run(9))).toBe(8);
    expect(manager.match(run(1))).toBe(0);
    expect(manager.match(run(0))).toBe(0);
    expect(manager.hitTokens(start(manager, run(8)))).toBe(4);
  });

  it('behaviour 21: decoding within a block allocates nothing, over its end exactly one', () => {
    const manager = make();
    const sequence = start(manager, run(6));
    const free = manager.pool.freeCount;
    append(manager, sequence, run(2, 6));
    expect(manager.pool.freeCount).toBe(free);
    expect(append(manager, sequence, run(1, 8)).positions[0]).toBe(8);
    expect(manager.pool.freeCount).toBe(free - 1);
    append(manager, sequence, run(3, 9));
    expect(manager.pool.freeCount).toBe(free - 1);
  });

  it('behaviour 10: a block can be hit once it is full, also while decoding', () => {
    const manager = make();
    const sequence = start(manager, run(7));
    expect(manager.match(run(20))).toBe(4);
    append(manager, sequence, run(1, 7));
    expect(manager.match(run(20))).toBe(8);
    append(manager, sequence, run(3, 8));
    expect(manager.match(run(20))).toBe(8);
  });

  it('behaviour 22: drafts have slots before they are certain; rejected ones cannot be hit', () => {
    const manager = make();
    const sequence = start(manager, run(6));
    const drafts = new SlotMapping();
    expect(manager.tryReserve(sequence, 4, drafts)).toBe(true);
    expect([...drafts.positions]).toEqual([6, 7, 8, 9]);
    expect(manager.match(run(20))).toBe(4);
    expect(() => manager.tryAppend(sequence, run(1), drafts)).toThrow(error('invalid-argument'));
    manager.commit(sequence, Uint32Array.of(6)); // the other three are rejected
    manager.truncate(sequence, 7);
    manager.check();
    expect(manager.match(run(20))).toBe(4);
    append(manager, sequence, Uint32Array.of(77));
    expect(manager.match(run(20))).toBe(4);
    expect(manager.match(Uint32Array.of(...run(7), 77, 1))).toBe(8);
    expect(() => manager.commit(sequence, run(1))).toThrow(error('invalid-argument'));
  });

  it('behaviour 23: without caching nothing hits and allocation is the same', () => {
    const manager = make(11, { isCaching: false });
    const first = start(manager, run(14));
    append(manager, first, run(3));
    manager.free(first);
    const second = start(manager, run(14));
    expect(manager.hitTokens(second)).toBe(0);
    expect(manager.cache.cachedCount).toBe(0);
    expect(manager.table(second).blockCount).toBe(4);
  });

  it('behaviour 24: a request that needs all logits reads no cache and writes it', () => {
    const manager = make();
    const first = start(manager, run(9), { skipLookup: true });
    const second = start(manager, run(9), { skipLookup: true });
    expect(manager.hitTokens(second)).toBe(0);
    expect(blocksOf(manager, second).some((id) => blocksOf(manager, first).includes(id))).toBe(
      false,
    );
    manager.free(first);
    manager.free(second);
    expect(manager.match(run(9))).toBe(8);
  });
});

describe('eviction order and pressure', () => {
  it('behaviour 25: never used first, then partial blocks, then tail to head, shared last', () => {
    const manager = make();
    const one = start(manager, run(14)); // 1 2 3 and partial 4
    const two = start(manager, Uint32Array.of(...run(8), 50, 51, 52, 53, 54)); // 1 2 and 5, 6
    manager.free(one);
    manager.free(two);
    expect([...manager.pool.freeIds()]).toEqual([7, 8, 9, 10, 4, 6, 3, 5, 2, 1]);
    expect(manager.pool.keptCount).toBe(4);
    manager.check();
  });

  it('behaviour 26: allocation evicts in that order, and what it evicts cannot be hit', () => {
    const manager = make();
    manager.free(start(manager, run(14)));
    manager.free(start(manager, run(14, 100)));
    expect([...manager.pool.freeIds()]).toEqual([9, 10, 4, 8, 3, 2, 1, 7, 6, 5]);
    const third = start(manager, run(18, 200));
    expect(blocksOf(manager, third)).toEqual([9, 10, 4, 8, 3]);
    expect(manager.match(run(14))).toBe(8);
    append(manager, third, run(6, 218));
    expect(manager.match(run(14))).toBe(4);
    append(manager, third, run(4, 224));
    expect(manager.match(run(14))).toBe(0);
    expect(manager.match(run(14, 100))).toBe(12);
    expect(manager.metrics().evictedBlocks).toBe(3);
  });

  it('behaviour 27: hit blocks are not evicted for the request that hits them', () => {
    const manager = make(6);
    manager.free(start(manager, run(8))); // 1 2 cached, first to go
    const tokens = Uint32Array.of(...run(8), ...run(10, 60));
    const sequence = start(manager, tokens);
    expect(manager.hitTokens(sequence)).toBe(8);
    expect(blocksOf(manager, sequence)).toEqual([1, 2, 3, 4, 5]);
  });

  it('behaviour 28: where blocks are missing nothing changes, hit blocks included', () => {
    const manager = make(6);
    manager.free(start(manager, run(8)));
    const before = [...manager.pool.freeIds()];
    const mapping = new SlotMapping();
    expect(manager.tryAllocate(Uint32Array.of(...run(8), ...run(16, 60)), mapping)).toBe(undefined);
    expect([...manager.pool.freeIds()]).toEqual(before);
    expect(mapping.length).toBe(0);
    expect(manager.sequenceCount).toBe(0);
    expect(manager.match(run(9))).toBe(8);
    const sequence = start(manager, run(17));
    expect(manager.tryAppend(sequence, run(4), mapping)).toBe(false);
    expect(manager.table(sequence).tokenCount).toBe(17);
    expect(manager.tryFork(sequence)).toBe(undefined);
    manager.check();
  });

  it('behaviour 29: the capacity question counts free hit blocks once, and changes nothing', () => {
    const manager = make(6);
    manager.free(start(manager, run(8)));
    expect(manager.blocksNeeded(run(20))).toBe(5);
    expect(manager.canAllocate(run(20))).toBe(true);
    expect(manager.canAllocate(run(21))).toBe(false);
    const holder = start(manager, run(9)); // holds 1 2 3
    expect(manager.blocksNeeded(run(16))).toBe(2);
    expect(manager.canAllocate(run(16))).toBe(true);
    expect(manager.canAllocate(run(17))).toBe(false);
    expect(manager.pool.freeCount).toBe(2);
    manager.free(holder);
    expect(manager.blocksNeeded(run(20), { appendTokens: 4 })).toBe(3);
  });

  it('behaviour 30: a block that is used again loses what it held, partial or not', () => {
    const manager = make(3);
    manager.free(start(manager, run(8)));
    const second = start(manager, run(1, 90));
    expect(blocksOf(manager, second)).toEqual([2]);
    expect(manager.match(run(9))).toBe(4);
    expect(manager.cache.nodeOf(2)).toBe(0);
  });

  it('behaviour 31: a reset is refused while blocks are used, and forgets everything after', () => {
    const manager = make();
    const sequence = start(manager, run(14));
    expect(manager.cache.tryReset()).toBe(false);
    expect(manager.match(run(14))).toBe(12);
    manager.free(sequence);
    expect(manager.cache.tryReset()).toBe(true);
    manager.check();
    expect(manager.match(run(14))).toBe(0);
    expect(manager.cache.nodes.size).toBe(0);
    expect(manager.pool.keptCount).toBe(0);
  });

  it('leaves the watermark to running sequences', () => {
    const manager = make(6, { watermarkBlocks: 2 });
    expect(manager.tryAllocate(run(13), new SlotMapping())).toBe(undefined);
    const sequence = start(manager, run(12));
    append(manager, sequence, run(8));
    expect(manager.pool.freeCount).toBe(0);
  });

  it('a prompt is prefilled in chunks', () => {
    const manager = make();
    const sequence = start(manager, run(14), { appendTokens: 5 });
    expect(manager.table(sequence).blockCount).toBe(2);
    expect(manager.match(run(14))).toBe(4);
    append(manager, sequence, run(14).subarray(5, 10));
    append(manager, sequence, run(14).subarray(10));
    expect(manager.match(run(15))).toBe(12);
  });

  it('behaviour 53: what freed sequences computed behind damage is not hit again', () => {
    const manager = make(15);
    const holder = start(manager, run(9));
    manager.free(start(manager, run(17)));
    expect(manager.match(run(17))).toBe(16);
    manager.invalidate(blocksOf(manager, holder).slice(1, 2));
    expect(manager.match(run(17))).toBe(4);
    manager.free(start(manager, run(9))); // computes the second block anew
    expect(manager.match(run(17))).toBe(8);
    manager.check();
  });

  it('tokens begin within their array', () => {
    const manager = make();
    const sequence = start(manager, run(3));
    expect(() => manager.tryAppend(sequence, run(3), new SlotMapping(), -1, 2)).toThrow(
      error('invalid-argument'),
    );
    manager.tryReserve(sequence, 3, new SlotMapping());
    expect(() => manager.commit(sequence, run(3), -1, 2)).toThrow(error('invalid-argument'));
    expect(manager.committedTokens(sequence)).toBe(3);
  });
});

/** The pool: reuse, classes, trimming, and pressure from below. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fail } from '../assert.js';
import { allocate, type Allocation, type MemoryKind } from '../resource.js';
import { hostResource } from '../testing.js';
import { arenaResource } from './arena.js';
import { limitedResource } from './limited.js';
import { pooledResource, sizeClassBytes } from './pooled.js';

const ARENA = { sizeBytes: 4096, kind: 'kv', label: 'arena' } as const;
const request = (sizeBytes: number, kind: MemoryKind = 'activations') =>
  ({ sizeBytes, kind, label: `${kind} ${sizeBytes}` }) as const;

describe('sizeClassBytes', () => {
  it('holds the request, wastes at most its share, and never shrinks as requests grow', () => {
    const exponent = fc.integer({ min: 0, max: 8 });
    fc.assert(
      fc.property(fc.integer({ min: 257, max: 2 ** 40 }), exponent, (size, log) => {
        const perDoubling = 2 ** log;
        const classBytes = sizeClassBytes(size, perDoubling);
        expect(classBytes).toBeGreaterThanOrEqual(size);
        expect(classBytes - size).toBeLessThan(Math.max(4, size / perDoubling));
        expect(classBytes % 4).toBe(0);
        expect(sizeClassBytes(classBytes, perDoubling)).toBe(classBytes);
        expect(sizeClassBytes(size + 1, perDoubling)).toBeGreaterThanOrEqual(classBytes);
      }),
    );
  });

  it.each([
    [0, 256],
    [256, 256],
    [257, 272],
    [4096, 4096],
    [4097, 4352],
  ])('%d B fall into the class of %d B', (size, classBytes) =>
    expect(sizeClassBytes(size, 16)).toBe(classBytes),
  );
});

describe('pooledResource', () => {
  it('creates nothing in a steady state, also where sizes grow slowly', () => {
    const bottom = hostResource();
    const pool = pooledResource(bottom);
    const step = (n: number): void => {
      const tensors = [1000, 5000 + n, 64].map((size) => allocate(pool, request(size)));
      for (const tensor of tensors) pool.free(tensor);
    };
    step(0);
    const warm = bottom.buffersCreated();
    for (let n = 1; n < 100; n += 1) step(n);
    expect(bottom.buffersCreated()).toBe(warm);
  });

  it('keeps kinds and usages apart', () => {
    const pool = pooledResource(hostResource());
    const first = allocate(pool, request(512, 'kv'));
    pool.free(first);
    const otherKind = allocate(pool, request(512, 'weights'));
    const otherUsage = allocate(pool, { ...request(512, 'kv'), usage: 0x40 });
    const same = allocate(pool, request(500, 'kv'));
    expect(otherKind.buffer).not.toBe(first.buffer);
    expect(otherUsage.buffer).not.toBe(first.buffer);
    expect(same.buffer).toBe(first.buffer);
    expect(same).not.toBe(first);
  });

  it('counts class rounding as padding and idle buffers as reserved', () => {
    const pool = pooledResource(hostResource());
    const range = allocate(pool, request(4097));
    expect(pool.stats()).toMatchObject({ liveBytes: 4097, paddingBytes: 255, reservedBytes: 4352 });
    pool.free(range);
    expect(pool.stats()).toMatchObject({ liveBytes: 0, paddingBytes: 0, reservedBytes: 4352 });
  });

  it('trims the longest idle buffers first, and no more than asked for', () => {
    const bottom = hostResource();
    const pool = pooledResource(bottom);
    const [a, b, c] = [1024, 2048, 4096].map((size) => allocate(pool, request(size)));
    for (const range of [b, c, a]) if (range !== undefined) pool.free(range);
    expect(pool.trim(1)).toBe(2048);
    expect(pool.trim(4097)).toBe(4096 + 1024);
    expect(pool.trim()).toBe(0);
    expect(bottom.stats().reservedBytes).toBe(0);
  });

  it('keeps at most maxIdleBytes idle', () => {
    const pool = pooledResource(hostResource(), { maxIdleBytes: 3000 });
    const ranges = [1024, 1024, 1024].map((size) => allocate(pool, request(size)));
    for (const range of ranges) pool.free(range);
    expect(pool.stats().reservedBytes).toBe(2048);
  });

  it('gives idle buffers of other classes back where the limit below has no room', () => {
    const limited = limitedResource(hostResource(), { limitBytes: 8192 });
    const pool = pooledResource(limited);
    const small = Array.from({ length: 8 }, () => allocate(pool, request(1024, 'kv')));
    for (const range of small) pool.free(range);
    expect(pool.stats()).toMatchObject({ reservedBytes: 8192, limitBytes: 8192 });
    expect(allocate(pool, request(2048)).sizeBytes).toBe(2048);
    // Two small ones made the room; six stay for reuse.
    expect(pool.stats().reservedBytes).toBe(2048 + 6 * 1024);
    expect(allocate(pool, request(6144)).sizeBytes).toBe(6144);
    expect(() => allocate(pool, request(4))).toThrow(/0 B free of 8192 B, short of 4 B/);
  });

  it('gives everything back where what was idle longest does not make a range', () => {
    const pool = pooledResource(arenaResource(hostResource(), ARENA));
    const ranges = Array.from({ length: 4 }, () => allocate(pool, request(1024, 'kv')));
    // Freed in an order in which the first two are no neighbours.
    for (const index of [0, 2, 1, 3]) pool.free(ranges.at(index) ?? fail('invariant', 'a range'));
    expect(allocate(pool, request(2048)).sizeBytes).toBe(2048);
    expect(pool.stats().reservedBytes).toBe(2048);
  });

  it('caps classes at the largest buffer, and leaves what exceeds it to the upstream', () => {
    const maxBufferBytes = 5000;
    const pool = pooledResource(hostResource({ maxBufferBytes }), { maxBufferBytes });
    expect(allocate(pool, request(5000)).sizeBytes).toBe(5000);
    expect(() => pool.tryAllocate(request(5001))).toThrow(/invalid-argument/);
    expect(pool.stats().allocationCount).toBe(1);
  });

  it('survives a listener that trims it in the middle of its own request', () => {
    const step = fc.record({
      sizeBytes: fc.nat(4000),
      kind: fc.constantFrom<MemoryKind>('kv', 'weights'),
      frees: fc.integer({ min: 0, max: 3 }),
      trims: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const bottom = hostResource();
        const limited = limitedResource(bottom, { limitBytes: 16_384 });
        const pool = pooledResource(limited);
        const live: Allocation[] = [];
        limited.onPressure((shortfallBytes) => pool.trim(shortfallBytes));
        for (const { sizeBytes, kind, frees, trims } of steps) {
          const allocation = pool.tryAllocate(request(sizeBytes, kind));
          if (allocation !== undefined) live.push(allocation);
          for (const victim of live.splice(0, frees)) pool.free(victim);
          if (trims) pool.trim(sizeBytes);
          bottom.check();
          const stats = pool.stats();
          expect(stats.reservedBytes).toBe(bottom.stats().reservedBytes);
          expect(stats.reservedBytes).toBeLessThanOrEqual(16_384);
          expect(stats.limitBytes).toBe(16_384);
          expect(stats.liveBytes).toBe(live.reduce((sum, { sizeBytes: bytes }) => sum + bytes, 0));
          expect(new Set(live.map(({ buffer }) => buffer)).size).toBe(live.length);
        }
        for (const allocation of live) pool.free(allocation);
        pool.dispose();
        limited.dispose();
        bottom.dispose();
      }),
    );
  });

  it('rejects classes that are no power of two, and a trim after disposal', () => {
    for (const classesPerDoubling of [0, 3, 512]) {
      expect(() => pooledResource(hostResource(), { classesPerDoubling })).toThrow(/classes/);
    }
    expect(() => pooledResource(hostResource(), { maxIdleBytes: -1 })).toThrow(/maxIdleBytes/);
    const pool = pooledResource(hostResource());
    pool.dispose();
    expect(() => pool.trim()).toThrow(/disposed/);
  });
});

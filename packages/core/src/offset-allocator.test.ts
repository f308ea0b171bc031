/** The range allocator against a naive model, and its laws at the edges. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OffsetAllocator, type RangeHandle } from './offset-allocator.js';

/** Allocates a size, or frees the n-th live range. */
const operation = fc.oneof(
  fc.record({ type: fc.constant('allocate' as const), size: fc.integer({ min: 1, max: 300 }) }),
  fc.record({ type: fc.constant('free' as const), index: fc.nat() }),
);

interface LiveRange {
  readonly handle: RangeHandle;
  readonly offset: number;
  readonly size: number;
}

function take(allocator: OffsetAllocator, size: number): LiveRange | undefined {
  const handle = allocator.tryAllocate(size);
  return handle === undefined ? undefined : { handle, offset: allocator.offsetOf(handle), size };
}

function must(range: LiveRange | undefined): LiveRange {
  if (range === undefined) throw new Error('the allocator had room and refused');
  return range;
}

/** Lengths of the gaps between live ranges: what a perfect allocator could still give. */
function gaps(live: readonly LiveRange[], size: number): number[] {
  const ends = [...live].sort((a, b) => a.offset - b.offset);
  const starts = [...ends.map(({ offset }) => offset), size];
  return starts.map((start, i) => start - (i === 0 ? 0 : endOf(ends[i - 1])));
}

function endOf(range: LiveRange | undefined): number {
  return range === undefined ? 0 : range.offset + range.size;
}

describe('OffsetAllocator', () => {
  it('agrees with a list of ranges over random operations', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2000 }),
        fc.array(operation, { maxLength: 120 }),
        (size, operations) => {
          const allocator = new OffsetAllocator({ size });
          const live: LiveRange[] = [];
          for (const op of operations) {
            if (op.type === 'free') {
              const [victim] = live.splice(op.index % Math.max(1, live.length), 1);
              if (victim !== undefined) allocator.free(victim.handle);
            } else {
              const range = take(allocator, op.size);
              if (range !== undefined) live.push(range);
              // Sizes below 64 have bins of their own, so the search for them is exact.
              else if (op.size < 64) expect(Math.max(...gaps(live, size))).toBeLessThan(op.size);
            }
            allocator.check();
            const free = gaps(live, size);
            // A negative gap is an overlap.
            expect(Math.min(...free)).toBeGreaterThanOrEqual(0);
            expect(allocator.freeSize).toBe(free.reduce((sum, gap) => sum + gap, 0));
            expect(allocator.largestFreeSize()).toBe(Math.max(...free));
            expect(allocator.freeExtentCount).toBe(free.filter((gap) => gap > 0).length);
            expect(allocator.usedCount).toBe(live.length);
            for (const { handle, size: taken } of live)
              expect(allocator.sizeOf(handle)).toBe(taken);
          }
          for (const { handle } of live) allocator.free(handle);
          allocator.check();
          expect(allocator.freeExtentCount).toBe(1);
          expect(allocator.largestFreeSize()).toBe(size);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('grants any size up to all that is left in one piece', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2 ** 31 - 1 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (size, share) => {
          const allocator = new OffsetAllocator({ size });
          const first = Math.max(1, Math.floor(size * share));
          must(take(allocator, first));
          if (first < size) must(take(allocator, size - first));
          allocator.check();
          expect(allocator.freeSize).toBe(0);
          expect(allocator.tryAllocate(1)).toBeUndefined();
          expect(allocator.largestFreeSize()).toBe(0);
        },
      ),
    );
  });

  it('merges with the range below, above, both and neither', () => {
    const allocator = new OffsetAllocator({ size: 50 });
    const [a, b, c, d, e] = [10, 10, 10, 10, 10].map((size) => must(take(allocator, size)));
    const extents: number[] = [];
    for (const range of [b, d, c, a, e]) {
      allocator.free(must(range).handle);
      allocator.check();
      extents.push(allocator.freeExtentCount);
    }
    expect(extents).toEqual([1, 2, 1, 1, 1]);
  });

  it('never gives a range shorter than asked for out of a coarse bin', () => {
    // 1024 to 1055 share a bin: a free 1030 must serve 1030 and refuse 1031, whatever else is free.
    const allocator = new OffsetAllocator({ size: 1042 });
    const [hole, , small] = [1030, 1, 10, 1].map((size) => must(take(allocator, size)));
    for (const range of [hole, small]) allocator.free(must(range).handle);
    expect(allocator.freeSize).toBe(1040);
    expect(allocator.tryAllocate(1031)).toBeUndefined();
    expect(must(take(allocator, 1030)).offset).toBe(0);
    allocator.check();
  });

  it('grows its records past the first ones', () => {
    const allocator = new OffsetAllocator({ size: 5000 });
    const ranges = Array.from({ length: 5000 }, () => must(take(allocator, 1)));
    expect(new Set(ranges.map(({ offset }) => offset)).size).toBe(5000);
    for (const { handle } of ranges.filter((_range, index) => index % 2 === 0))
      allocator.free(handle);
    allocator.check();
    expect(allocator.freeExtentCount).toBe(2500);
    expect(allocator.tryAllocate(2)).toBeUndefined();
  });

  it('rejects bad sizes and handles, and stays as it was', () => {
    const allocator = new OffsetAllocator({ size: 100 });
    const range = must(take(allocator, 10));
    for (const size of [0, -1, 1.5, NaN])
      expect(() => allocator.tryAllocate(size)).toThrow(/size >= 1/);
    expect(allocator.tryAllocate(2 ** 40)).toBeUndefined();
    for (const handle of [-1, 1, 99, 0.5, NaN])
      expect(() => allocator.free(handle)).toThrow(/not in use/);
    allocator.free(range.handle);
    expect(() => allocator.free(range.handle)).toThrow(/not in use/);
    expect(() => allocator.offsetOf(range.handle)).toThrow(/not in use/);
    for (const size of [0, 2 ** 31, 1.5])
      expect(() => new OffsetAllocator({ size })).toThrow(/size must/);
    allocator.check();
  });
});

/** The arena's own rules: alignment, one buffer, fragmentation, and what creation can reject. */
import { describe, expect, it } from 'vitest';
import { allocate } from '../resource.js';
import { faultyResource, hostResource } from '../testing.js';
import { arenaResource } from './arena.js';
import { countedResource } from './counted.js';

const block = { sizeBytes: 4096, kind: 'kv', label: 'cache' } as const;
const request = (sizeBytes: number) =>
  ({ sizeBytes, kind: 'kv', label: `${sizeBytes} B` }) as const;

describe('arenaResource', () => {
  it('takes one buffer under its own name and kind, and nothing after', () => {
    const bottom = countedResource(hostResource());
    const arena = arenaResource(bottom, block);
    expect(bottom.stats().liveBytesByKind.kv).toBe(4096);
    const ranges = [1, 256, 257].map((size) => allocate(arena, request(size)));
    expect(bottom.counts().distinctBuffers).toBe(1);
    expect(ranges.map(({ offsetBytes }) => offsetBytes)).toEqual([0, 256, 512]);
    expect(new Set(ranges.map(({ buffer }) => buffer)).size).toBe(1);
    expect(arena.stats()).toMatchObject({
      liveBytes: 514,
      paddingBytes: 255 + 255,
      reservedBytes: 4096,
      limitBytes: 4096,
    });
    expect(arena.largestFreeBytes()).toBe(4096 - 1024);
  });

  it('grants all of it at once, and refuses a fragmented request without a shortfall', () => {
    const arena = arenaResource(hostResource(), block);
    arena.free(allocate(arena, request(4096)));
    const ranges = Array.from({ length: 16 }, () => allocate(arena, request(256)));
    for (const range of ranges.filter((_range, index) => index % 2 === 0)) arena.free(range);
    expect(arena.largestFreeBytes()).toBe(256);
    expect(() => allocate(arena, request(512))).toThrow(/2048 B free of 4096 B, but no range/);
  });

  it('aligns ranges as asked, also inside another arena', () => {
    const outer = arenaResource(hostResource(), { ...block, alignmentBytes: 64 });
    allocate(outer, request(1));
    const inner = arenaResource(outer, { ...block, sizeBytes: 1024, alignmentBytes: 16 });
    const offsets = [1, 17, 1].map((size) => allocate(inner, request(size)).offsetBytes);
    expect(offsets).toEqual([64, 80, 112]);
    // The next free offset of the outer arena is no multiple of 512.
    const misfit = { ...block, sizeBytes: 1024, alignmentBytes: 512 };
    const before = outer.stats();
    expect(() => arenaResource(outer, misfit)).toThrow(/unaligned/);
    expect(outer.stats()).toEqual(before);
  });

  it('serves usages that its buffer has, and rejects others', () => {
    const arena = arenaResource(hostResource(), block);
    expect(allocate(arena, { ...request(4), usage: 0x80 }).sizeBytes).toBe(4);
    expect(() => arena.tryAllocate({ ...request(4), usage: 0x40 })).toThrow(/usage flags 64/);
    expect(arena.stats().allocationCount).toBe(1);
  });

  it('rejects sizes and alignments that do not fit, and takes nothing then', () => {
    const bottom = hostResource();
    const wrong = [
      { sizeBytes: 0 },
      { sizeBytes: 300 },
      { alignmentBytes: 96 },
      { alignmentBytes: 2 },
    ];
    for (const options of wrong) {
      expect(() => arenaResource(bottom, { ...block, ...options })).toThrow(/invalid-argument/);
    }
    const refusing = faultyResource(bottom, { failAt: [0] });
    expect(() => arenaResource(refusing, block)).toThrow(/out-of-memory: needed 4096 B .* 'cache'/);
    expect(bottom.buffersCreated()).toBe(0);
  });
});

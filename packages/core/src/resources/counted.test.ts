/** The counted wrapper: what its counts say after calls that succeed, find no room, or fail. */
import { describe, expect, it } from 'vitest';
import { allocate } from '../resource.js';
import { hostResource } from '../testing.js';
import { countedResource } from './counted.js';
import { pooledResource } from './pooled.js';

const request = (sizeBytes: number, kind: 'kv' | 'weights') => ({ sizeBytes, kind, label: kind });

describe('countedResource', () => {
  it('counts calls, refusals, distinct buffers and peaks', () => {
    const counted = countedResource(pooledResource(hostResource({ capacityBytes: 4096 })));
    const kv = allocate(counted, request(1000, 'kv'));
    const weights = allocate(counted, request(2000, 'weights'));
    counted.free(kv);
    const again = allocate(counted, request(1008, 'kv'));
    expect(counted.tryAllocate(request(4096, 'kv'))).toBeUndefined();
    counted.free(weights);
    counted.free(again);
    const counts = counted.counts();
    expect(counts).toMatchObject({ allocations: 3, refusals: 1, frees: 3, distinctBuffers: 2 });
    expect(counts.peakLiveBytes).toBe(3008);
    expect(counts.peakLiveBytesByKind).toMatchObject({ kv: 1008, weights: 2000, optimizer: 0 });
  });

  it('does not count a free that fails', () => {
    const counted = countedResource(hostResource());
    const kv = allocate(counted, request(4, 'kv'));
    counted.free(kv);
    expect(() => counted.free(kv)).toThrow(/not live/);
    expect(counted.counts().frees).toBe(1);
  });

  it('tells two wrappers over one resource apart', () => {
    const bottom = hostResource();
    const [a, b] = [countedResource(bottom), countedResource(bottom)];
    const range = allocate(a, request(4, 'kv'));
    expect(() => b.free(range)).toThrow(/belongs to another resource/);
    expect(b.counts().allocations).toBe(0);
    a.free(range);
  });
});

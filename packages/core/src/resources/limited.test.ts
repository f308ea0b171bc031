/** The limit: exactness at the byte, pressure listeners, and what failures leave behind. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { allocate, type Allocation } from '../resource.js';
import { faultyResource, hostResource } from '../testing.js';
import { limitedResource } from './limited.js';
import { pooledResource } from './pooled.js';

const request = (sizeBytes: number, label = 'x') => ({ sizeBytes, kind: 'kv', label }) as const;

describe('limitedResource', () => {
  it('grants exactly the limit, and one byte less is refused before the upstream is asked', () => {
    const bottom = hostResource();
    const exact = limitedResource(bottom, { limitBytes: 4096 });
    exact.free(allocate(exact, request(4096)));
    const short = limitedResource(bottom, { limitBytes: 4095 });
    const created = bottom.buffersCreated();
    expect(short.tryAllocate(request(4096))).toBeUndefined();
    expect(bottom.buffersCreated()).toBe(created);
    expect(() => allocate(short, request(4096, 'layer 7'))).toThrow(
      "out-of-memory: needed 4096 B of kind 'kv' for 'layer 7', 4095 B free of 4095 B",
    );
    // The refusal harms nothing: what fits is still granted.
    short.free(allocate(short, request(4092)));
  });

  it('asks listeners in order, each for what is still missing, until there is room', () => {
    const limited = limitedResource(hostResource(), { limitBytes: 1000 });
    const caches = [300, 300, 400].map((size, i) => allocate(limited, request(size, `cache ${i}`)));
    const asked: string[] = [];
    for (const cache of caches) {
      limited.onPressure((shortfallBytes, { label }) => {
        asked.push(`${cache.label} for ${shortfallBytes} of ${label}`);
        limited.free(cache);
        return cache.sizeBytes;
      });
    }
    allocate(limited, request(500, 'tensor'));
    expect(asked).toEqual(['cache 0 for 500 of tensor', 'cache 1 for 200 of tensor']);
    expect(limited.stats().liveBytes).toBe(900);
  });

  it('asks for a bounded number of rounds, however often a listener claims to have freed', () => {
    const limited = limitedResource(hostResource(), { limitBytes: 100, maxPressureRounds: 4 });
    allocate(limited, request(100));
    let calls = 0;
    limited.onPressure(() => {
      calls += 1;
      return 1;
    });
    expect(limited.tryAllocate(request(50))).toBeUndefined();
    expect(calls).toBe(4);
  });

  it('stops when a whole round frees nothing, and asks nobody for what can never fit', () => {
    const limited = limitedResource(hostResource(), { limitBytes: 100 });
    allocate(limited, request(100));
    let calls = 0;
    limited.onPressure(() => {
      calls += 1;
      return 0;
    });
    expect(limited.tryAllocate(request(50))).toBeUndefined();
    expect(calls).toBe(1);
    expect(limited.tryAllocate(request(104))).toBeUndefined();
    expect(calls).toBe(1);
  });

  it('believes the ledger, not the number that a listener returns', () => {
    const limited = limitedResource(hostResource(), { limitBytes: 100 });
    const held = allocate(limited, request(100));
    limited.onPressure(() => {
      limited.free(held);
      return 0;
    });
    expect(limited.tryAllocate(request(50))?.sizeBytes).toBe(50);
  });

  it('asks listeners too where the limit has room and the upstream has none', () => {
    const bottom = hostResource({ capacityBytes: 1000 });
    const limited = limitedResource(bottom, { limitBytes: 5000 });
    const cache = allocate(limited, request(900));
    const shortfalls: number[] = [];
    limited.onPressure((shortfallBytes) => {
      shortfalls.push(shortfallBytes);
      limited.free(cache);
      return 900;
    });
    expect(limited.tryAllocate(request(500))?.sizeBytes).toBe(500);
    expect(shortfalls).toEqual([500]);
  });

  it('does not ask for what a listener allocates itself', () => {
    const limited = limitedResource(hostResource(), { limitBytes: 100 });
    const held = allocate(limited, request(100));
    const inner: (Allocation | undefined)[] = [];
    let calls = 0;
    limited.onPressure(() => {
      calls += 1;
      inner.push(limited.tryAllocate(request(40)));
      limited.free(held);
      inner.push(limited.tryAllocate(request(40)));
      return 60;
    });
    expect(limited.tryAllocate(request(60))?.sizeBytes).toBe(60);
    expect(calls).toBe(1);
    expect(inner.map((allocation) => allocation?.sizeBytes)).toEqual([undefined, 40]);
  });

  it('lets a listener error through and can be asked again', () => {
    const limited = limitedResource(hostResource(), { limitBytes: 100 });
    const held = allocate(limited, request(100));
    const remove = limited.onPressure(() => {
      throw new Error('eviction failed');
    });
    expect(() => limited.tryAllocate(request(50))).toThrow('eviction failed');
    remove();
    remove();
    limited.onPressure(() => {
      limited.free(held);
      return 100;
    });
    expect(limited.tryAllocate(request(50))?.sizeBytes).toBe(50);
  });

  it.each(['refuse', 'throw'] as const)('gives its promise back where the upstream %ss', (mode) => {
    const faulty = faultyResource(hostResource(), { failAt: [0, 1], mode });
    const limited = limitedResource(faulty, { limitBytes: 64 });
    const attempt = () => limited.tryAllocate(request(64));
    for (let call = 0; call < 2; call += 1) {
      if (mode === 'throw') expect(attempt).toThrow(/fails as planned/);
      else expect(attempt()).toBeUndefined();
      expect(limited.stats()).toMatchObject({ liveBytes: 0, reservedBytes: 0, limitBytes: 64 });
    }
    expect(attempt()?.sizeBytes).toBe(64);
  });

  it('reports the tighter of its own limit and the room below', () => {
    const shared = limitedResource(hostResource(), { limitBytes: 1000 });
    const kv = limitedResource(shared, { limitBytes: 600 });
    const weights = limitedResource(shared, { limitBytes: 800 });
    allocate(weights, request(800));
    expect(kv.stats().limitBytes).toBe(200);
    expect(() => allocate(kv, request(300))).toThrow(/200 B free of 200 B, short of 100 B/);
  });

  it('relieves a limit below a pool when the pool trims', () => {
    const limited = limitedResource(hostResource(), { limitBytes: 8192 });
    const pool = pooledResource(limited);
    pool.free(allocate(pool, request(4096)));
    limited.onPressure((shortfallBytes) => pool.trim(shortfallBytes));
    // Beside the pool: only the listener can make the room.
    expect(limited.tryAllocate(request(8192))?.sizeBytes).toBe(8192);
    expect(pool.stats().reservedBytes).toBe(0);
  });

  it('never exceeds the limit, whatever listeners do', () => {
    const step = fc.record({ sizeBytes: fc.nat(300), frees: fc.nat(3), free: fc.boolean() });
    fc.assert(
      fc.property(fc.nat(1000), fc.array(step, { maxLength: 60 }), (limitBytes, steps) => {
        const bottom = hostResource();
        const limited = limitedResource(bottom, { limitBytes });
        const live: Allocation[] = [];
        let mayFree = 0;
        limited.onPressure(() => {
          const victims = live.splice(0, mayFree);
          for (const victim of victims) limited.free(victim);
          return victims.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
        });
        for (const { sizeBytes, frees, free } of steps) {
          mayFree = frees;
          const allocation = limited.tryAllocate(request(sizeBytes));
          if (allocation !== undefined) live.push(allocation);
          const victim = free ? live.pop() : undefined;
          if (victim !== undefined) limited.free(victim);
          bottom.check();
          expect(bottom.stats().reservedBytes).toBeLessThanOrEqual(limitBytes);
          expect(bottom.stats().peakReservedBytes).toBeLessThanOrEqual(limitBytes);
          expect(limited.stats().allocationCount).toBe(live.length);
          expect(limited.stats().reservedBytes).toBe(bottom.stats().reservedBytes);
        }
        for (const allocation of live) limited.free(allocation);
        limited.dispose();
        bottom.dispose();
      }),
    );
  });

  it('rejects a limit that is no count of bytes', () => {
    for (const limitBytes of [-1, 0.5, NaN]) {
      expect(() => limitedResource(hostResource(), { limitBytes })).toThrow(/invalid-argument/);
    }
    expect(limitedResource(hostResource(), { limitBytes: Infinity }).stats().limitBytes).toBe(
      Infinity,
    );
  });
});

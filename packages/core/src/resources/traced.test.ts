/** The traced wrapper: what a sink receives, and that failing calls send it nothing. */
import { describe, expect, it } from 'vitest';
import { allocate } from '../resource.js';
import { hostResource } from '../testing.js';
import type { TraceEvent } from '../tracing.js';
import { tracedResource } from './traced.js';

describe('tracedResource', () => {
  it('emits one event per success, with the totals after it, on the injected clock', () => {
    const events: TraceEvent[] = [];
    let timeMs = 0;
    const now = (): number => (timeMs += 5);
    const bottom = hostResource({ capacityBytes: 200 });
    const traced = tracedResource(bottom, (event) => events.push(event), { now });
    const kv = allocate(traced, { sizeBytes: 100, kind: 'kv', label: 'block' });
    allocate(traced, { sizeBytes: 10, kind: 'weights', label: 'norm' });
    expect(traced.tryAllocate({ sizeBytes: 100, kind: 'kv', label: 'refused' })).toBeUndefined();
    traced.free(kv);
    expect(() => traced.free(kv)).toThrow(/not live/);
    const none = { activations: 0, gradients: 0, optimizer: 0, staging: 0 };
    const block = { kind: 'kv', label: 'block', sizeBytes: 100 };
    expect(events).toEqual([
      {
        type: 'allocate',
        timeMs: 5,
        ...block,
        liveBytes: 100,
        liveBytesByKind: { ...none, kv: 100, weights: 0 },
      },
      {
        type: 'allocate',
        timeMs: 10,
        kind: 'weights',
        label: 'norm',
        sizeBytes: 10,
        liveBytes: 110,
        liveBytesByKind: { ...none, kv: 100, weights: 10 },
      },
      {
        type: 'free',
        timeMs: 15,
        ...block,
        liveBytes: 10,
        liveBytesByKind: { ...none, kv: 0, weights: 10 },
      },
    ]);
  });
});

/**
 * A wrapper that fails on purpose, to test what stands above a resource when memory runs out or a
 * driver throws. A failing call does not reach the upstream.
 */
import { VramError } from '../errors.js';
import type { MemoryResource } from '../resource.js';

/** Options of {@link faultyResource}. */
export interface FaultyResourceOptions {
  /** Which `tryAllocate` calls fail, counted from 0 over the life of the wrapper. */
  readonly failAt: readonly number[] | ((callIndex: number) => boolean);
  /** Whether a failing call gives `undefined` or throws `device-lost`. Default: 'refuse'. */
  readonly mode?: 'refuse' | 'throw';
}

/** Wraps `upstream` so that chosen allocations fail. */
export function faultyResource(
  upstream: MemoryResource,
  options: FaultyResourceOptions,
): MemoryResource {
  const { failAt, mode = 'refuse' } = options;
  const fails = typeof failAt === 'function' ? failAt : (call: number) => failAt.includes(call);
  let calls = 0;
  return {
    tryAllocate(request) {
      const call = calls;
      calls += 1;
      if (!fails(call)) return upstream.tryAllocate(request);
      if (mode === 'refuse') return undefined;
      throw new VramError('device-lost', `allocation ${call} fails as planned`, {
        context: { call },
      });
    },
    free: (allocation) => upstream.free(allocation),
    stats: () => upstream.stats(),
    // Transparent: there is nothing of its own to give back.
    dispose: () => undefined,
  };
}

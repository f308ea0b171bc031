/**
 * The bytes that the executor of a schedule takes, by tier. Not an estimate: the executor allocates
 * exactly this, and its tests compare the counters with these numbers.
 *
 * Per parameter, with w bytes of the parameter type, f of the flush type and d = 2 where the plan is
 * atomic, else 1:
 *
 * | subgroup | device                        | host                     |
 * | -------- | ----------------------------- | ------------------------ |
 * | host     | w                             | 12 d master and moments, 4 gradient |
 * | streamed | w, 4 gradient, 1 partial sum of 4 B per granule | 12 d  |
 * | resident | w, 4 gradient, partial sums, 12 d | -                    |
 *
 * Beside that, sized by the largest subgroup: device copies of p, m and v for streamed ones (slots),
 * rings for what comes down, one bounce buffer on the host for what goes up.
 */
import { dtypeBytes } from '@vramkit/core';
import {
  SUBGROUP_GRANULE,
  type MemoryFootprint,
  type StateLayout,
  type Subgroup,
} from './schedule.js';

/** Bytes of one page of WebAssembly memory. */
export const WASM_PAGE_BYTES = 65_536;
/** Bytes of the buffer through which everything goes up. */
export const BOUNCE_BYTES = 4 * 1024 * 1024;
/** Buffers of the ring for flushed gradients. */
export const FLUSH_SLOTS = 2;
/** Bytes at the start of a bank: the worker threads' control words. */
export const CONTROL_BYTES = 1024;

/** `bytes` rounded up to the alignment of bindings and of vectors. */
export function alignedBytes(bytes: number): number {
  return Math.ceil(bytes / 256) * 256;
}

/** Floats of the partial sums of `count` values. */
export function partialCount(count: number): number {
  return Math.ceil(count / SUBGROUP_GRANULE);
}

/** Bytes on the host of one subgroup: master, moments, gradient, and its narrowed parameters. */
export function hostSubgroupBytes(
  { site, count }: Subgroup,
  layout: Required<StateLayout>,
): { readonly state: number; readonly gradient: number; readonly partials: number } {
  const sides = layout.atomic ? 2 : 1;
  const held = site !== 'resident';
  return {
    state: held ? 3 * sides * alignedBytes(4 * count) : 0,
    gradient: site === 'host' ? alignedBytes(4 * count) : 0,
    partials: site === 'host' ? alignedBytes(4 * partialCount(count)) : 0,
  };
}

/** Bytes of the area of the host in which 16-bit values are made or received, for one subgroup. */
export function narrowAreaBytes(layout: Required<StateLayout>, largest: number): number {
  const wide = Math.max(
    layout.parameterDType === 'f32' ? 0 : dtypeBytes(layout.parameterDType, largest),
    dtypeBytes(layout.flushDType, largest),
  );
  return alignedBytes(wide);
}

/** The bytes of a plan over these subgroups. */
export function measureFootprint(
  subgroups: readonly Subgroup[],
  layout: Required<StateLayout>,
): MemoryFootprint {
  const largest = Math.max(...subgroups.map(({ count }) => count));
  const sides = layout.atomic ? 2 : 1;
  const has = (site: Subgroup['site']): boolean => subgroups.some((each) => each.site === site);
  const padded = (bytes: number): number => Math.ceil(bytes / 4) * 4;
  let device = 0;
  let host = 0;
  for (const subgroup of subgroups) {
    const { site, count } = subgroup;
    device += padded(dtypeBytes(layout.parameterDType, count));
    if (site !== 'host') device += 4 * count + 4 * partialCount(count);
    if (site === 'resident') device += 12 * sides * count;
    const { state, gradient, partials } = hostSubgroupBytes(subgroup, layout);
    host += state + gradient + partials;
  }
  if (has('streamed')) device += layout.slots * 12 * largest;
  let staging = 0;
  const flushBytes = padded(dtypeBytes(layout.flushDType, largest));
  if (has('host')) {
    // Each flush slot has a side on the device, where gradients are narrowed, and a mapped one.
    device += FLUSH_SLOTS * flushBytes;
    staging += FLUSH_SLOTS * flushBytes;
    host += 2 * narrowAreaBytes(layout, largest);
  }
  if (has('streamed')) staging += layout.slots * 12 * largest;
  if (has('streamed') || has('resident')) staging += 4 * partialCount(largest);
  if (host > 0) host += CONTROL_BYTES;
  host = Math.ceil(host / WASM_PAGE_BYTES) * WASM_PAGE_BYTES + BOUNCE_BYTES;
  return { deviceBytes: device, stagingBytes: staging, hostBytes: host };
}

/**
 * The bytes that the executor of a schedule takes, by tier. Not an estimate: the executor allocates
 * by the functions of this file, and its tests compare counters with these numbers.
 *
 * Per parameter, with w bytes of the parameter type and d = 2 where the plan is atomic, else 1:
 *
 * | subgroup | device                              | host                                |
 * | -------- | ----------------------------------- | ----------------------------------- |
 * | host     | w                                   | 12 d master and moments, 4 gradient |
 * | streamed | w, 4 gradient, 4 B a granule (sums) | 12 d                                |
 * | resident | w, 4 gradient, sums, 12 d           | -                                   |
 *
 * Beside that, sized by the largest subgroup: device copies of p, m and v for streamed ones
 * (slots), mapped rings for what comes down, two areas on the host in which 16-bit values are made
 * or received, and one bounce buffer for what goes up.
 */
import { dtypeBytes } from '@vramkit/core';
import {
  SUBGROUP_GRANULE,
  type MemoryFootprint,
  type StateDType,
  type StateLayout,
  type Subgroup,
} from './schedule.js';

/** Bytes of one page of WebAssembly memory. */
export const WASM_PAGE_BYTES = 65_536;
/** Bytes of the buffer through which everything goes up. */
export const BOUNCE_BYTES = 4 * 1024 * 1024;
/** Buffers of the ring for flushed gradients. */
export const FLUSH_SLOTS = 2;
/** Areas on the host for 16-bit values. */
export const NARROW_AREAS = 2;
/** Bytes at the start of host memory: the worker threads' control words. */
export const CONTROL_BYTES = 1024;

/** Bytes of `count` elements on the device: whole vectors of four. */
export function quadBytes(dtype: StateDType, count: number): number {
  return dtypeBytes(dtype, Math.ceil(count / 4) * 4);
}

/** Bytes of `count` elements on the host: the SIMD kernels' vectors have no tails. */
export function hostArrayBytes(dtype: StateDType, count: number): number {
  return Math.ceil(dtypeBytes(dtype, count) / 256) * 256;
}

/** Partial sums of `count` values. */
export function partialCount(count: number): number {
  return Math.ceil(count / SUBGROUP_GRANULE);
}

/**
 * Where the partial sums of each subgroup that the device updates start, bytes, and their end: the
 * last entry. Bindings start at multiples of 256.
 */
export function partialOffsets(subgroups: readonly Subgroup[]): number[] {
  const offsets = [0];
  for (const { site, count } of subgroups) {
    const bytes = site === 'host' ? 0 : Math.ceil((4 * partialCount(count)) / 256) * 256;
    offsets.push((offsets.at(-1) ?? 0) + bytes);
  }
  return offsets;
}

/** Elements of the largest subgroup. */
export function largestCount(subgroups: readonly Subgroup[]): number {
  return Math.max(...subgroups.map(({ count }) => count));
}

/** Whether a subgroup of this site exists. */
export function hasSite(subgroups: readonly Subgroup[], ...sites: Subgroup['site'][]): boolean {
  return subgroups.some(({ site }) => sites.includes(site));
}

/** Bytes of one area for narrow values. */
export function narrowAreaBytes(layout: Required<StateLayout>, largest: number): number {
  const pushed =
    layout.parameterDType === 'f32' ? 0 : hostArrayBytes(layout.parameterDType, largest);
  return Math.max(pushed, hostArrayBytes(layout.flushDType, largest));
}

/** The bytes of a plan over these subgroups. */
export function measureFootprint(
  subgroups: readonly Subgroup[],
  layout: Required<StateLayout>,
): MemoryFootprint {
  const largest = largestCount(subgroups);
  const sides = layout.atomic ? 2 : 1;
  // The partial sums, and the mapped buffer in which they come down.
  let device = partialOffsets(subgroups).at(-1) ?? 0;
  let staging = device;
  let host = 0;
  for (const { site, count } of subgroups) {
    const wide = quadBytes('f32', count);
    device += quadBytes(layout.parameterDType, count);
    if (site !== 'host') device += wide;
    if (site === 'resident') device += 3 * sides * wide;
    if (site !== 'resident') host += 3 * sides * hostArrayBytes('f32', count);
    if (site === 'host') {
      host += hostArrayBytes('f32', count) + hostArrayBytes('f32', partialCount(count));
    }
  }
  if (hasSite(subgroups, 'streamed')) {
    device += layout.slots * 3 * quadBytes('f32', largest);
    staging += layout.slots * 3 * quadBytes('f32', largest);
  }
  if (hasSite(subgroups, 'host')) {
    // A flush slot has a side on the device, where gradients are narrowed, and a mapped one.
    device += FLUSH_SLOTS * quadBytes(layout.flushDType, largest);
    staging += FLUSH_SLOTS * quadBytes(layout.flushDType, largest);
    host += NARROW_AREAS * narrowAreaBytes(layout, largest);
  }
  const pages = Math.ceil((host + CONTROL_BYTES) / WASM_PAGE_BYTES);
  return {
    deviceBytes: device,
    stagingBytes: staging,
    hostBytes: pages * WASM_PAGE_BYTES + BOUNCE_BYTES,
  };
}

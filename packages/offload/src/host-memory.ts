/**
 * The host's share of a schedule: one shared WebAssembly memory with every array at a fixed
 * address.
 *
 * ```
 *  control words │ subgroup 0: p m v (p' m' v') g partials │ subgroup 1: … │ narrow areas
 * ```
 *
 * Threads and the main program see the same bytes; nothing is copied to hand over work. A plan that
 * is atomic has two sides of p, m and v: a step reads one and writes the other, and the optimizer
 * turns them round when the step is complete. One memory holds 4 GiB at most, which is
 * WebAssembly's limit with 32-bit addresses.
 */
import { fail } from '@vramkit/core';
import {
  CONTROL_BYTES,
  hasSite,
  hostArrayBytes,
  largestCount,
  NARROW_AREAS,
  narrowAreaBytes,
  partialCount,
  WASM_PAGE_BYTES,
} from './footprint.js';
import type { Schedule } from './schedule.js';

/** Byte addresses of one subgroup; those that its site does not have are -1. */
export interface HostArrays {
  /** Addresses of p, m and v, per side; both the same where the plan is not atomic. */
  readonly state: readonly [readonly number[], readonly number[]];
  readonly gradient: number;
  readonly partials: number;
}

/** Shared memory laid out for one schedule. */
export class HostMemory {
  readonly memory: WebAssembly.Memory;
  /** By subgroup. */
  readonly arrays: readonly HostArrays[];
  /** Addresses of the areas for 16-bit values. */
  readonly narrowAreas: readonly number[];
  readonly #bytes: Uint8Array;

  /**
   * Takes the memory.
   * @throws VramError `unsupported` above 4 GiB or without shared memory, `out-of-memory` where the
   * host has none.
   */
  constructor({ subgroups, layout }: Schedule) {
    let next = CONTROL_BYTES;
    const take = (bytes: number): number => {
      const address = next;
      next += bytes;
      return address;
    };
    this.arrays = subgroups.map(({ site, count }) => {
      const wide = hostArrayBytes('f32', count);
      const side = (): number[] =>
        site === 'resident' ? [] : [take(wide), take(wide), take(wide)];
      const first = side();
      const isHost = site === 'host';
      return {
        state: [first, layout.atomic ? side() : first],
        gradient: isHost ? take(wide) : -1,
        partials: isHost ? take(hostArrayBytes('f32', partialCount(count))) : -1,
      };
    });
    const area = hasSite(subgroups, 'host') ? narrowAreaBytes(layout, largestCount(subgroups)) : 0;
    this.narrowAreas = Array.from({ length: NARROW_AREAS }, () => take(area));
    const pages = Math.ceil(next / WASM_PAGE_BYTES);
    if (pages > 65_536) {
      fail('unsupported', `${next} B of host state exceed the 4 GiB of one WebAssembly memory`, {
        neededBytes: next,
      });
    }
    if (typeof SharedArrayBuffer === 'undefined') {
      fail('unsupported', 'shared memory is off; in a page it needs cross-origin isolation');
    }
    try {
      this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    } catch {
      fail('out-of-memory', `the host has no ${next} B for the state`, { neededBytes: next });
    }
    this.#bytes = new Uint8Array(this.memory.buffer);
  }

  /** Bytes taken. */
  get sizeBytes(): number {
    return this.memory.buffer.byteLength;
  }

  /** `count` bytes at an address. */
  bytes(address: number, count: number): Uint8Array {
    return this.#bytes.subarray(address, address + count);
  }

  /** `count` floats at an address. */
  floats(address: number, count: number): Float32Array {
    return new Float32Array(this.memory.buffer, address, count);
  }
}

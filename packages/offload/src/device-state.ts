/**
 * The device's share of a schedule: parameters, kept gradients, resident state, slots for streamed
 * state, and the mapped buffers in which things come down. All memory is taken at the start; a step
 * creates no buffer.
 *
 * Work is recorded and submitted here; who waits for whom is the executor's business. Dispatches
 * are cut into windows where an array exceeds the largest binding.
 */
import {
  allocate,
  Batch,
  BufferUsage,
  fail,
  subrange,
  tensorFromBuffer,
  type Allocation,
  type BufferRange,
  type MemoryKind,
  type MemoryResource,
  type Tensor,
  type VramDevice,
} from '@vramkit/core';
import type { AdamStep } from './adam/adam.js';
import { adamKernel, quadWorkgroups, WORKGROUP_SIZE } from './adam/adam.wgsl.js';
import { flushGradientKernel, keepGradientKernel, sumSquaresKernel } from './adam/gradient.wgsl.js';
import {
  BOUNCE_BYTES,
  FLUSH_SLOTS,
  hasSite,
  largestCount,
  partialCount,
  partialOffsets,
  quadBytes,
} from './footprint.js';
import { SUBGROUP_GRANULE, type Schedule, type StateDType } from './schedule.js';

/** Ranges of p, m and v. */
export type StateRanges = readonly [BufferRange, BufferRange, BufferRange];

const MAP_READ = 1;

/** Device memory of one schedule; see the head of this file. */
export class DeviceState {
  readonly device: VramDevice;
  /** Parameters by subgroup, of the parameter type; lent to the model. */
  readonly weights: readonly Tensor[];
  readonly #schedule: Schedule;
  readonly #allocations: { resource: MemoryResource; allocation: Allocation }[] = [];
  readonly #weightRanges: readonly BufferRange[];
  readonly #kept: readonly (BufferRange | undefined)[];
  readonly #partials: BufferRange | undefined;
  readonly #partialOffsets: readonly number[];
  readonly #partialsDown: Allocation | undefined;
  readonly #resident: readonly (readonly [StateRanges, StateRanges] | undefined)[];
  readonly #slots: readonly StateRanges[];
  readonly #slotsDown: readonly Allocation[];
  readonly #flushes: readonly BufferRange[];
  readonly #flushesDown: readonly Allocation[];
  readonly #bounce = new Uint8Array(BOUNCE_BYTES);

  /**
   * Takes all memory, or none.
   * @throws VramError `out-of-memory` naming kind and shortfall.
   */
  constructor(device: VramDevice, schedule: Schedule, memory: MemoryResource) {
    this.device = device;
    this.#schedule = schedule;
    const { subgroups, layout } = schedule;
    const largest = largestCount(subgroups);
    const take = (kind: MemoryKind, label: string, sizeBytes: number): Allocation =>
      this.#take(memory, { kind, label, sizeBytes });
    const takeState = (label: string, count: number): StateRanges => {
      const bytes = quadBytes('f32', count);
      const one = (name: string): Allocation => take('optimizer', `${label}.${name}`, bytes);
      return [one('master'), one('first'), one('second')];
    };
    const takeMapped = (label: string, sizeBytes: number): Allocation => {
      const usage = BufferUsage.mapRead | BufferUsage.copyDestination;
      return this.#take(memory, { kind: 'staging', label, sizeBytes, usage });
    };
    const times = <T>(count: number, make: (index: number) => T): T[] =>
      Array.from({ length: count }, (_, index) => make(index));
    try {
      this.#weightRanges = subgroups.map(({ count }, index) =>
        take('weights', `weights.${index}`, quadBytes(layout.parameterDType, count)),
      );
      this.#kept = subgroups.map(({ site, count }, index) =>
        site === 'host'
          ? undefined
          : take('gradients', `gradient.${index}`, quadBytes('f32', count)),
      );
      this.#resident = subgroups.map(({ site, count }, index) => {
        if (site !== 'resident') return undefined;
        const side = takeState(`resident.${index}`, count);
        return [side, layout.atomic ? takeState(`resident.${index}.next`, count) : side] as const;
      });
      const streams = hasSite(subgroups, 'streamed') ? layout.slots : 0;
      const wide = quadBytes('f32', largest);
      this.#slots = times(streams, (index) => takeState(`slot.${index}`, largest));
      this.#slotsDown = times(streams, (index) => takeMapped(`mapped.slot.${index}`, 3 * wide));
      const flushes = hasSite(subgroups, 'host') ? FLUSH_SLOTS : 0;
      const narrow = quadBytes(layout.flushDType, largest);
      this.#flushes = times(flushes, (index) => take('staging', `flush.${index}`, narrow));
      this.#flushesDown = times(flushes, (index) => takeMapped(`mapped.flush.${index}`, narrow));
      this.#partialOffsets = partialOffsets(subgroups);
      const partialBytes = this.#partialOffsets.at(-1) ?? 0;
      if (partialBytes > 0) {
        this.#partials = take('gradients', 'partial sums', partialBytes);
        this.#partialsDown = takeMapped('mapped.partial sums', partialBytes);
      }
    } catch (error) {
      this.dispose();
      throw error;
    }
    this.weights = subgroups.map(({ count }, index) => {
      const { buffer, offsetBytes } = this.#weightRange(index);
      const dtype = layout.parameterDType;
      return tensorFromBuffer(device, buffer, { dtype, shape: [count], offsetBytes });
    });
  }

  #take(
    resource: MemoryResource,
    request: { kind: MemoryKind; label: string; sizeBytes: number; usage?: number },
  ): Allocation {
    const allocation = allocate(resource, request);
    this.#allocations.push({ resource, allocation });
    return allocation;
  }

  #weightRange(index: number): BufferRange {
    return found(this.#weightRanges[index]);
  }

  /** p, m and v of a resident subgroup, on one side. */
  resident(index: number, side: 0 | 1): StateRanges {
    return found(this.#resident[index])[side];
  }

  /** p, m and v of a slot. */
  slot(slot: number): StateRanges {
    return found(this.#slots[slot]);
  }

  /**
   * Runs `body` for the parts of `count` elements that a binding of f32 holds.
   */
  #windows(count: number, body: (start: number, length: number) => void): void {
    const most = this.device.limits.maxStorageBufferBindingSize / (4 * SUBGROUP_GRANULE);
    const step = Math.max(1, Math.floor(most)) * SUBGROUP_GRANULE;
    for (let start = 0; start < count; start += step) body(start, Math.min(step, count - start));
  }

  /** Copies bytes of shared memory to a range; the bytes may change at once. */
  write(range: BufferRange, bytes: Uint8Array): void {
    const { gpuDevice, counters } = this.device;
    this.device.assertUsable();
    for (let done = 0; done < bytes.length; done += BOUNCE_BYTES) {
      const part = bytes.subarray(done, done + BOUNCE_BYTES);
      // Queues take no views of shared memory, so everything goes up through one private buffer.
      this.#bounce.set(part);
      const { buffer, offsetBytes } = subrange(range, done, part.length);
      gpuDevice.queue.writeBuffer(buffer, offsetBytes, this.#bounce, 0, part.length);
    }
    counters.uploadedBytes += bytes.length;
  }

  /** Writes the parameters of a subgroup, whole quads of the parameter type. */
  writeWeights(index: number, bytes: Uint8Array): void {
    this.write(this.#weightRange(index), bytes);
  }

  /** Adds a gradient on the device, or replaces what is there. */
  keepGradient(index: number, source: BufferRange, keep: boolean): void {
    const kept = found(this.#kept[index]);
    const batch = new Batch(this.device, 'keep gradient');
    this.#windows(this.#count(index), (start, length) => {
      const quads = Math.ceil(length / 4);
      batch.dispatch(keepGradientKernel, {
        params: { dtype: this.#schedule.layout.flushDType },
        bindings: {
          source: subrange(source, 4 * start, 4 * length),
          kept: subrange(kept, 4 * start, 16 * quads),
        },
        uniforms: { quads, count: length, keep: keep ? 1 : 0 },
        workgroups: quadWorkgroups(quads),
      });
    });
    batch.submit();
  }

  /** Rounds `source` into `target` as the type says; recorded into `batch`. */
  #narrow(
    batch: Batch,
    source: BufferRange,
    target: BufferRange,
    count: number,
    dtype: StateDType,
  ) {
    this.#windows(count, (start, length) => {
      const quads = Math.ceil(length / 4);
      batch.dispatch(flushGradientKernel, {
        params: { dtype },
        bindings: {
          source: subrange(source, 4 * start, 4 * length),
          result: subrange(target, quadBytes(dtype, start), quadBytes(dtype, length)),
        },
        uniforms: { quads, count: length },
        workgroups: quadWorkgroups(quads),
      });
    });
  }

  /** Rounds a gradient and copies it into a mapped buffer; `receiveFlush` reads it. */
  sendFlush(slot: number, index: number, source: BufferRange): void {
    const batch = new Batch(this.device, 'flush gradient');
    const { flushDType } = this.#schedule.layout;
    const count = this.#count(index);
    const target = found(this.#flushes[slot]);
    this.#narrow(batch, source, target, count, flushDType);
    batch.copy(subrange(target, 0, quadBytes(flushDType, count)), found(this.#flushesDown[slot]));
    batch.submit();
  }

  /** Resolves when the queue has done what was submitted so far, also where the device is lost. */
  async idle(): Promise<void> {
    await this.device.gpuDevice.queue.onSubmittedWorkDone().catch(() => undefined);
  }

  /** Waits for a flush and hands its bytes to `take`, which must be done with them on return. */
  async receiveFlush(slot: number, index: number, take: (bytes: Uint8Array) => void) {
    const bytes = quadBytes(this.#schedule.layout.flushDType, this.#count(index));
    await this.#map(found(this.#flushesDown[slot]), bytes, take);
  }

  async #map(staging: Allocation, bytes: number, take: (bytes: Uint8Array) => void) {
    const { device } = this;
    await device.orLost(staging.buffer.mapAsync(MAP_READ, 0, bytes));
    try {
      take(new Uint8Array(staging.buffer.getMappedRange(0, bytes)));
    } finally {
      staging.buffer.unmap();
    }
    device.counters.downloadedBytes += bytes;
  }

  /** Partial sums of squares of every gradient on the device, by subgroup; empty for host ones. */
  async sumSquares(): Promise<Float32Array[]> {
    const { subgroups } = this.#schedule;
    const sums = subgroups.map(() => new Float32Array(0));
    if (this.#partials === undefined || this.#partialsDown === undefined) return sums;
    const batch = new Batch(this.device, 'sum squares');
    subgroups.forEach(({ count, site }, index) => {
      if (site !== 'host') this.#sumOne(batch, index, count);
    });
    batch.copy(this.#partials, this.#partialsDown);
    batch.submit();
    await this.#map(this.#partialsDown, this.#partials.sizeBytes, (bytes) => {
      const floats = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
      subgroups.forEach(({ count, site }, index) => {
        const start = (this.#partialOffsets[index] ?? 0) / 4;
        if (site !== 'host') sums[index] = floats.slice(start, start + partialCount(count));
      });
    });
    return sums;
  }

  #sumOne(batch: Batch, index: number, count: number): void {
    const kept = found(this.#kept[index]);
    const all = subrange(
      found(this.#partials),
      this.#partialOffsets[index] ?? 0,
      4 * partialCount(count),
    );
    // A window of partial sums starts at a multiple of 256 B, so of 64 granules.
    const most = this.device.limits.maxStorageBufferBindingSize / (256 * SUBGROUP_GRANULE);
    const step = Math.max(1, Math.floor(most)) * 64 * SUBGROUP_GRANULE;
    for (let start = 0; start < count; start += step) {
      const length = Math.min(step, count - start);
      const partials = partialCount(length);
      batch.dispatch(sumSquaresKernel, {
        params: {},
        bindings: {
          kept: subrange(kept, 4 * start, quadBytes('f32', length)),
          partials: subrange(all, (4 * start) / SUBGROUP_GRANULE, 4 * partials),
        },
        uniforms: { count: length, partialCount: partials },
        workgroups: Math.ceil(partials / WORKGROUP_SIZE),
      });
    }
  }

  /**
   * Updates a subgroup in place in `state`, and its parameters. `from` is copied into `state` first
   * where it is another one.
   */
  update(index: number, from: StateRanges, state: StateRanges, step: AdamStep): void {
    const batch = new Batch(this.device, 'adam');
    const count = this.#count(index);
    if (from !== state) from.forEach((range, at) => batch.copy(range, found(state[at])));
    const { parameterDType } = this.#schedule.layout;
    this.#windows(count, (start, length) => {
      const quads = Math.ceil(length / 4);
      const part = (range: BufferRange): BufferRange => subrange(range, 4 * start, 16 * quads);
      const weightAt = quadBytes(parameterDType, start);
      batch.dispatch(adamKernel, {
        params: { dtype: parameterDType },
        bindings: {
          gradient: part(found(this.#kept[index])),
          master: part(state[0]),
          first: part(state[1]),
          second: part(state[2]),
          weights: subrange(this.#weightRange(index), weightAt, quadBytes(parameterDType, length)),
        },
        uniforms: { quads, ...step },
        workgroups: quadWorkgroups(quads),
      });
    });
    batch.submit();
  }

  /** Makes the parameters of a subgroup from masters on the device. */
  narrowWeights(index: number, master: BufferRange): void {
    const batch = new Batch(this.device, 'narrow weights');
    const { parameterDType } = this.#schedule.layout;
    this.#narrow(batch, master, this.#weightRange(index), this.#count(index), parameterDType);
    batch.submit();
  }

  /** Copies a slot down and hands p, m and v to `take`, which must be done with them on return. */
  async stageOut(
    slot: number,
    index: number,
    take: (state: readonly Uint8Array[]) => void,
  ): Promise<void> {
    const bytes = quadBytes('f32', this.#count(index));
    const staging = found(this.#slotsDown[slot]);
    const batch = new Batch(this.device, 'stage out');
    this.slot(slot).forEach((range, at) =>
      batch.copy(subrange(range, 0, bytes), subrange(staging, at * bytes, bytes)),
    );
    batch.submit();
    await this.#map(staging, 3 * bytes, (all) =>
      take([0, 1, 2].map((at) => all.subarray(at * bytes, (at + 1) * bytes))),
    );
  }

  #count(index: number): number {
    return found(this.#schedule.subgroups[index]).count;
  }

  /** Gives all memory back; idempotent. The weights are gone with it. */
  dispose(): void {
    for (const { resource, allocation } of this.#allocations) resource.free(allocation);
    this.#allocations.length = 0;
  }
}

/** What a schedule's sites promise to be there. */
function found<T>(value: T | undefined): T {
  if (value === undefined) fail('invariant', 'the schedule has no such array');
  return value;
}

/**
 * What the operations of a schedule do: every copy and every kernel between the host's and the
 * device's share. Stateless but for the slots that streamed subgroups take in turn.
 */
import { assertArgument } from '@vramkit/core';
import { ADAM_STEP_NAMES, type AdamStep } from './adam/adam.js';
import type { DeviceState } from './device-state.js';
import { NARROW_AREAS, partialCount, quadBytes } from './footprint.js';
import type { HostMemory } from './host-memory.js';
import type { HostKernel, HostPool } from './host-pool.js';
import { SUBGROUP_GRANULE, type Operation, type Schedule, type StateDType } from './schedule.js';

/** Which of the two sides of the state is read. */
export type Side = 0 | 1;

/** Three arrays of all parameters. */
export interface StateArrays {
  readonly parameters: Float32Array;
  readonly firstMoment: Float32Array;
  readonly secondMoment: Float32Array;
}

const NAMES = ['parameters', 'firstMoment', 'secondMoment'] as const;
/** The largest f32: what sums of squares count for gradients that are not finite. */
const LARGEST = 3.4028234663852886e38;
const padded = (count: number): number => Math.ceil(count / 16) * 16;

/** See the head of this file. */
export class StateMover {
  readonly #schedule: Schedule;
  readonly #device: DeviceState;
  readonly #host: HostMemory;
  readonly #pool: HostPool;
  /** By subgroup, when the last flush that it was sent is in its sum. */
  readonly #adding: Promise<void>[] = [];
  /** Slot by streamed subgroup, narrow area by host subgroup. */
  readonly #turns: readonly number[];

  constructor(schedule: Schedule, device: DeviceState, host: HostMemory, pool: HostPool) {
    this.#schedule = schedule;
    this.#device = device;
    this.#host = host;
    this.#pool = pool;
    const next = { host: 0, streamed: 0, resident: 0 };
    this.#turns = schedule.subgroups.map(({ site }) => {
      const turns = site === 'streamed' ? schedule.layout.slots : NARROW_AREAS;
      return next[site]++ % turns;
    });
  }

  /**
   * Runs one operation of an update that reads `side` and writes the other one, if there is one.
   */
  execute(operation: Operation, side: Side, step: AdamStep): Promise<void> | void {
    const { kind, subgroup } = operation;
    switch (kind) {
      case 'adam':
        if (operation.lane === 'cpu-adam') return this.#adam(subgroup, side, step);
        return this.#adamOnDevice(subgroup, side, step);
      case 'cast':
        return this.#narrow(subgroup, this.#written(side));
      case 'push':
        return this.#push(subgroup, this.#written(side));
      case 'stage-in':
        return this.#stageIn(subgroup, side);
      case 'stage-out':
        return this.#stageOut(subgroup, this.#written(side));
      case 'forward':
      case 'backward':
      case 'flush':
      case 'upcast':
        return undefined; // The model's own; an update has none of them.
    }
  }

  #written(side: Side): Side {
    if (!this.#schedule.layout.atomic) return side;
    return side === 0 ? 1 : 0;
  }

  #count(index: number): number {
    return this.#schedule.subgroups[index]?.count ?? 0;
  }

  #addresses(index: number, side: Side): readonly number[] {
    return this.#host.arrays[index]?.state[side] ?? [];
  }

  #turn(index: number): number {
    return this.#turns[index] ?? 0;
  }

  #adam(index: number, side: Side, step: AdamStep): Promise<void> {
    const addresses = [
      ...this.#addresses(index, side),
      this.#host.arrays[index]?.gradient ?? -1,
      ...this.#addresses(index, this.#written(side)),
    ];
    return this.#pool.run({
      kernel: 'adam',
      addresses,
      strides: addresses.map(() => 4),
      count: padded(this.#count(index)),
      scalars: ADAM_STEP_NAMES.map((name) => step[name]),
    });
  }

  #adamOnDevice(index: number, side: Side, step: AdamStep): void {
    if (this.#schedule.subgroups[index]?.site === 'streamed') {
      const slot = this.#device.slot(this.#turn(index));
      this.#device.update(index, slot, slot, step);
      return;
    }
    const from = this.#device.resident(index, side);
    this.#device.update(index, from, this.#device.resident(index, this.#written(side)), step);
  }

  #area(index: number): number {
    return this.#host.narrowAreas[this.#turn(index)] ?? -1;
  }

  async #narrow(index: number, side: Side): Promise<void> {
    const dtype = this.#schedule.layout.parameterDType;
    if (dtype === 'f32') return;
    await this.#pool.run({
      kernel: `narrow_${dtype}`,
      addresses: [this.#addresses(index, side)[0] ?? -1, this.#area(index)],
      strides: [4, 2],
      count: padded(this.#count(index)),
    });
  }

  #push(index: number, side: Side): void {
    const dtype = this.#schedule.layout.parameterDType;
    const source = dtype === 'f32' ? (this.#addresses(index, side)[0] ?? -1) : this.#area(index);
    const bytes = quadBytes(dtype, this.#count(index));
    this.#device.writeWeights(index, this.#host.bytes(source, bytes));
  }

  #stageIn(index: number, side: Side): void {
    const bytes = quadBytes('f32', this.#count(index));
    const slot = this.#device.slot(this.#turn(index));
    this.#addresses(index, side).forEach((address, at) => {
      const range = slot[at];
      if (range !== undefined) this.#device.write(range, this.#host.bytes(address, bytes));
    });
  }

  #stageOut(index: number, side: Side): Promise<void> {
    return this.#device.stageOut(this.#turn(index), index, (state) => {
      this.#addresses(index, side).forEach((address, at) => {
        const bytes = state[at];
        if (bytes !== undefined) this.#host.bytes(address, bytes.length).set(bytes);
      });
    });
  }

  /**
   * Brings a flushed gradient into the host's f32 sum, or replaces the sum; those of one subgroup
   * in the order of the calls.
   */
  receiveFlush(slot: number, index: number, keep: boolean): Promise<void> {
    const adding = this.#receiveAfter(this.#adding[index], slot, index, keep);
    this.#adding[index] = adding.catch(() => undefined);
    return adding;
  }

  async #receiveAfter(
    before: Promise<void> | undefined,
    slot: number,
    index: number,
    keep: boolean,
  ): Promise<void> {
    const area = this.#host.narrowAreas[slot] ?? -1;
    await this.#device.receiveFlush(slot, index, (bytes) =>
      this.#host.bytes(area, bytes.length).set(bytes),
    );
    await before;
    const dtype: StateDType = this.#schedule.layout.flushDType;
    await this.#pool.run({
      kernel: `add_${dtype}`,
      addresses: [area, this.#host.arrays[index]?.gradient ?? -1],
      strides: [dtype === 'f32' ? 4 : 2, 4],
      count: padded(this.#count(index)),
      scalars: [keep ? -1 : 0],
    });
  }

  /** The norm of all gradients as they came; `Infinity` where one is not finite. */
  async gradientNorm(): Promise<number> {
    const { subgroups } = this.#schedule;
    const kernel: HostKernel = 'sum_squares';
    const onHost = subgroups.map(async ({ site, count }, index) => {
      const { gradient = -1, partials = -1 } = this.#host.arrays[index] ?? {};
      if (site !== 'host') return new Float32Array(0);
      // What a flush left behind the last element must not count.
      this.#host.floats(gradient, padded(count)).fill(0, count);
      await this.#pool.run({
        kernel,
        addresses: [gradient, partials],
        strides: [4, 4 / SUBGROUP_GRANULE],
        count: padded(count),
      });
      return this.#host.floats(partials, partialCount(count));
    });
    const [hostSums, deviceSums] = await Promise.all([
      Promise.all(onHost),
      this.#device.sumSquares(),
    ]);
    let sum = 0;
    // In the order of the parameters, so that the plan does not show in the last bit.
    subgroups.forEach((_, index) => {
      for (const sums of [hostSums[index], deviceSums[index]]) {
        for (const partial of sums ?? []) sum += partial < LARGEST ? partial : Infinity;
      }
    });
    return Math.sqrt(sum);
  }

  /** Makes all parameters on the device from the masters of a side. */
  async writeAllWeights(side: Side): Promise<void> {
    for (const [index, { site }] of this.#schedule.subgroups.entries()) {
      if (site === 'resident') {
        this.#device.narrowWeights(index, this.#device.resident(index, side)[0]);
        continue;
      }
      await this.#writeWeights(index, side, site === 'host');
    }
    await this.#device.device.settle();
  }

  async #writeWeights(index: number, side: Side, onHost: boolean): Promise<void> {
    if (onHost || this.#schedule.layout.parameterDType === 'f32') {
      await this.#narrow(index, side);
      this.#push(index, side);
      return;
    }
    // A streamed subgroup has no area for narrow values; the device makes them.
    const slot = this.#device.slot(this.#turn(index));
    const master = this.#addresses(index, side)[0] ?? -1;
    const bytes = quadBytes('f32', this.#count(index));
    this.#device.write(slot[0], this.#host.bytes(master, bytes));
    this.#device.narrowWeights(index, slot[0]);
  }

  /** Copies of all state of a side. */
  async readState(side: Side): Promise<StateArrays> {
    const { parameterCount } = this.#schedule.layout;
    const result: StateArrays = {
      parameters: new Float32Array(parameterCount),
      firstMoment: new Float32Array(parameterCount),
      secondMoment: new Float32Array(parameterCount),
    };
    for (const [index, { site, start, count }] of this.#schedule.subgroups.entries()) {
      for (const [at, name] of NAMES.entries()) {
        if (site !== 'resident') {
          result[name].set(this.#host.floats(this.#addresses(index, side)[at] ?? -1, count), start);
          continue;
        }
        const range = this.#device.resident(index, side)[at];
        if (range === undefined) continue;
        const bytes = await this.#device.device.readback.read(range);
        result[name].set(new Float32Array(bytes.buffer, bytes.byteOffset, count), start);
      }
    }
    return result;
  }

  /** Writes all state of a side, and the parameters on the device; absent moments become zero. */
  async writeState(
    side: Side,
    state: Pick<StateArrays, 'parameters'> & Partial<StateArrays>,
  ): Promise<void> {
    const { parameterCount } = this.#schedule.layout;
    for (const name of NAMES) {
      const length = state[name]?.length ?? parameterCount;
      assertArgument(length === parameterCount, `${name} has ${length} values`);
    }
    for (const [index, { site, start, count }] of this.#schedule.subgroups.entries()) {
      for (const [at, name] of NAMES.entries()) {
        const source = state[name]?.subarray(start, start + count) ?? new Float32Array(count);
        if (site !== 'resident') {
          this.#host.floats(this.#addresses(index, side)[at] ?? -1, count).set(source);
          continue;
        }
        const range = this.#device.resident(index, side)[at];
        if (range === undefined) continue;
        const whole = new Float32Array(Math.ceil(count / 4) * 4);
        whole.set(source);
        this.#device.write(range, new Uint8Array(whole.buffer));
      }
    }
    await this.writeAllWeights(side);
  }
}

/**
 * What a calibration times: subgroups of one size, as many as the plans to come have, so that an
 * operation finds its state where a step finds it, in memory and not in a cache.
 *
 * Single operations are the executor's own parts, timed in rows: one operation over each subgroup,
 * with one wait for the queue at the end, as in an update. Whole updates are steps of an optimizer.
 */
import { createTensor, throwIfAborted, type Tensor, type VramDevice } from '@vramkit/core';
import { adamStep, completeAdam } from './adam/adam.js';
import { DeviceState } from './device-state.js';
import { HostMemory } from './host-memory.js';
import { HostPool } from './host-pool.js';
import type { CostName } from './machine.js';
import { createOptimizer } from './optimizer.js';
import { deepOptimizerStates } from './planners/deep-optimizer-states.js';
import type { OperationKind, Schedule, StateDType } from './schedule.js';
import { StateMover } from './state-mover.js';

/**
 * What is updated: subgroups of one site, host and streamed ones in turn (`mixed`), or one streamed
 * for up to seven on the host (`sparse`).
 */
export type RigPlan = 'host' | 'streamed' | 'resident' | 'mixed' | 'sparse';

/** All of them, in the order in which they are timed. */
export const RIG_PLANS: readonly RigPlan[] = [
  ...(['host', 'streamed', 'resident', 'mixed', 'sparse'] as const),
];

const SPARSE_STRIDE = 8;

/** Operations that are timed one by one, by the plan that has them. */
export const RIG_COSTS = {
  host: ['adam', 'cast', 'push'],
  streamed: ['stageIn', 'gpuAdam', 'stageOut'],
} as const satisfies Partial<Record<RigPlan, readonly TimedOperation[]>>;

/** Operations that are timed one by one: where one kind makes an update, the update is timed. */
export type TimedOperation = Exclude<CostName, 'residentAdam'>;

/** The plan of a rig. */
export function rigSchedule(plan: RigPlan, shape: RigShape): Schedule {
  const { size, subgroups, parameterDType } = shape;
  const layout = {
    ...{ parameterCount: subgroups * size, subgroupSize: size },
    ...{ parameterDType, flushDType: parameterDType },
  };
  const sparse = Math.max(2, Math.min(SPARSE_STRIDE, Math.floor(subgroups / 2)));
  const stride = { host: Infinity, streamed: 1, resident: 1, mixed: 2, sparse }[plan];
  return deepOptimizerStates(layout, { stride, ratio: plan === 'resident' ? 0 : 1 });
}

/** What a rig updates. */
export interface RigShape {
  /** Parameters of a subgroup. */
  readonly size: number;
  readonly subgroups: number;
  readonly parameterDType: StateDType;
}

/** Options of {@link openRig}. */
export interface RigOptions extends RigShape {
  /** What is updated. No default. */
  readonly plan: RigPlan;
  /** Threads of the CPU's kernels. No default. */
  readonly threads: number;
  /** Checked before each row and each step. Default: never stops. */
  readonly signal?: AbortSignal;
  /** Clock, milliseconds. No default. */
  readonly now: () => number;
}

/** See the head of this file; the caller disposes it. */
export interface Rig {
  /** Milliseconds of one operation, the mean over a row; 0 for one that the plan has not. */
  operationMs(name: TimedOperation): Promise<number>;
  /** Milliseconds until the host knows that the queue has done nothing. */
  endMs(): Promise<number>;
  /** Gives threads and memory back. */
  dispose(): Promise<void>;
}

const KINDS: Readonly<Record<TimedOperation, OperationKind>> = {
  adam: 'adam',
  cast: 'cast',
  push: 'push',
  stageIn: 'stage-in',
  gpuAdam: 'adam',
  stageOut: 'stage-out',
};

/**
 * Takes the memory and touches all of it.
 * @throws VramError `out-of-memory`, `aborted`.
 */
export async function openRig(device: VramDevice, options: RigOptions): Promise<Rig> {
  const { size, plan, threads, signal, now } = options;
  const schedule = rigSchedule(plan, options);
  const host = new HostMemory(schedule);
  const state = new DeviceState(device, schedule, device.memory);
  const pool = new HostPool(host.memory, { threads });
  const mover = new StateMover(schedule, state, host, pool);
  const step = adamStep(completeAdam({}), 1);
  const source = createGradient(device, size);
  // As before every update: gradients have just been written, and their norm taken.
  const arrive = async (): Promise<void> => {
    throwIfAborted(signal);
    schedule.subgroups.forEach(({ site }, index) => {
      if (site !== 'host') state.keepGradient(index, source, false);
      else host.floats(host.arrays[index]?.gradient ?? 0, size).fill(0.1);
    });
    await mover.gradientNorm();
    await device.settle();
  };
  const time = async (work: () => Promise<void> | void): Promise<number> => {
    const start = now();
    await work();
    await device.settle();
    return now() - start;
  };
  const rig: Rig = {
    operationMs: async (name) => {
      const row = schedule.operations.filter(({ kind }) => kind === KINDS[name]);
      if (row.length === 0) return 0;
      if (KINDS[name] === 'adam') await arrive();
      const ms = await time(async () => {
        for (const operation of row) await mover.execute(operation, 0, step);
      });
      return ms / row.length;
    },
    endMs: () =>
      time(() => device.gpuDevice.queue.submit([device.gpuDevice.createCommandEncoder().finish()])),
    dispose: async () => {
      await pool.dispose();
      source.dispose();
      state.dispose();
    },
  };
  try {
    // First touches of memory are slow.
    for (const operation of schedule.operations) await mover.execute(operation, 0, step);
    await device.settle();
    return rig;
  } catch (error) {
    await rig.dispose();
    throw error;
  }
}

function createGradient(device: VramDevice, size: number): Tensor {
  const label = 'calibration';
  const gradient = createTensor(device, { dtype: 'f32', shape: [size], kind: 'gradients', label });
  gradient.write(new Float32Array(size).fill(0.01));
  return gradient;
}

/**
 * Milliseconds of whole updates, a number per run, behind one that does not count.
 * @throws VramError `out-of-memory`, `aborted`.
 */
export async function timeUpdates(
  device: VramDevice,
  options: RigOptions & { readonly runs: number },
): Promise<number[]> {
  const { size, plan, threads, runs, signal, now } = options;
  const schedule = rigSchedule(plan, options);
  const parameters = new Float32Array(schedule.layout.parameterCount).fill(0.5);
  await using optimizer = await createOptimizer(device, schedule, { parameters }, { threads, now });
  using gradient = createGradient(device, size);
  const ms: number[] = [];
  for (let run = -1; run < runs; run++) {
    throwIfAborted(signal);
    for (const index of schedule.subgroups.keys()) await optimizer.addGradient(index, gradient);
    await device.settle();
    const { updateMs } = await optimizer.step();
    if (run >= 0) ms.push(updateMs);
  }
  return ms;
}

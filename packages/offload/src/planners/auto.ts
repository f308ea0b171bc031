/**
 * The fastest plan that fits: every planner at every sensible setting, filtered by the byte
 * budgets, timed by the simulator, least time first. Ties go to the plan with fewer device bytes.
 *
 * Where nothing fits, the answer says how many bytes the closest plan misses in each tier.
 */
import { assertArgument } from '@vramkit/core';
import { buildIteration, type IterationOptions } from '../iteration.js';
import type { Machine } from '../machine.js';
import type { MemoryFootprint, Schedule, StateLayout } from '../schedule.js';
import { simulate } from '../simulate.js';
import { deepOptimizerStates } from './deep-optimizer-states.js';
import { gpuOnly } from './gpu-only.js';
import { zeroOffload } from './zero-offload.js';

/** What a plan may take at most, bytes by tier. */
export interface Budgets {
  /** On the device, staging included. Default: no limit. */
  readonly deviceBytes?: number;
  /** On the host. 0 forbids the host. Default: no limit. */
  readonly hostBytes?: number;
}

/** Options of {@link auto}. */
export interface AutoOptions {
  /** Rates to plan for. */
  readonly machine: Machine;
  /** Default: no limits. */
  readonly budgets?: Budgets;
  /** Shares of subgroups that may leave the device. Default: 0, 0.1, ... 1. */
  readonly ratios?: readonly number[];
  /** Strides to try. Default: 1 to 8 and `Infinity`. */
  readonly strides?: readonly number[];
  /** Work around the update to plan for. Default: the update alone. */
  readonly iteration?: IterationOptions;
}

/** A plan with its predicted time, or what is missing. */
export type AutoPlan =
  | { readonly schedule: Schedule; readonly predictedMs: number; readonly measurement: string }
  | {
      /** Bytes that the plan closest to the budgets lacks; 0 where the tier suffices. */
      readonly infeasible: MissingBytes;
    };

/** Bytes that a plan lacks, by tier. */
export interface MissingBytes {
  readonly deviceBytes: number;
  readonly hostBytes: number;
  /** The planner of that plan. */
  readonly planner: string;
}

const TENTHS = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];
const STRIDES = [1, 2, 3, 4, 5, 6, 7, 8, Infinity];

/**
 * The fastest plan within the budgets. Simulates at most ratios x strides plans.
 * @throws VramError `invalid-argument` for a budget below 0 or NaN.
 */
export function auto(layout: StateLayout, options: AutoOptions): AutoPlan {
  const { machine, budgets = {}, ratios = TENTHS, strides = STRIDES } = options;
  const { deviceBytes = Infinity, hostBytes = Infinity } = budgets;
  assertArgument(deviceBytes >= 0, `the device's budget is ${deviceBytes} B`);
  assertArgument(hostBytes >= 0, `the host's budget is ${hostBytes} B`);
  const candidates = new Map<string, Schedule>();
  const add = (schedule: Schedule): void => {
    const key = schedule.subgroups.map(({ site }) => site[0]).join('');
    if (!candidates.has(key)) candidates.set(key, schedule);
  };
  add(gpuOnly(layout));
  add(zeroOffload(layout));
  for (const ratio of ratios) {
    for (const stride of strides) add(deepOptimizerStates(layout, { ratio, stride }));
  }
  let best: { schedule: Schedule; predictedMs: number } | undefined;
  let closest: MissingBytes | undefined;
  for (const schedule of candidates.values()) {
    const missing = missingBytes(schedule.footprint, budgets, schedule.planner);
    if (missing.deviceBytes + missing.hostBytes > 0) {
      if (closest === undefined || sum(missing) < sum(closest)) closest = missing;
      continue;
    }
    const { operations, times } = buildIteration(schedule, options.iteration);
    const predictedMs = simulate(operations, machine, times).totalMs;
    const isBetter =
      best === undefined ||
      predictedMs < best.predictedMs ||
      (predictedMs === best.predictedMs &&
        schedule.footprint.deviceBytes < best.schedule.footprint.deviceBytes);
    if (isBetter) best = { schedule, predictedMs };
  }
  if (best !== undefined) return { ...best, measurement: machine.name };
  return { infeasible: closest ?? { deviceBytes: 0, hostBytes: 0, planner: 'none' } };
}

function missingBytes(need: MemoryFootprint, have: Budgets, planner: string): MissingBytes {
  const device = need.deviceBytes + need.stagingBytes - (have.deviceBytes ?? Infinity);
  const host = need.hostBytes - (have.hostBytes ?? Infinity);
  return { deviceBytes: Math.max(0, device), hostBytes: Math.max(0, host), planner };
}

function sum({ deviceBytes, hostBytes }: MissingBytes): number {
  return deviceBytes + hostBytes;
}

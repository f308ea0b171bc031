/**
 * Measures what plans rest on, on the machine at hand, by the very code that the executor runs
 * (calibration-rig.ts), over as much state as the plans to come have.
 *
 * Each operation is timed alone at several subgroup sizes; plans look its cost up by size. A line
 * is fitted through the sizes too, for the closed form and for people. What operations cost each
 * other is fitted to whole updates; fit-costs.ts says how. Of several runs the least counts.
 * Nothing is kept on the device.
 *
 * A table is plain JSON with the machine that it was measured on; `isCalibrationOf` says whether it
 * still holds, and a caller saves and reuses it.
 */
import { assertArgument, checkInteger, type VramDevice } from '@vramkit/core';
import type { BlobStore } from '@vramkit/storage';
import { calibrateHost, type HostRates } from './calibrate-host.js';
import {
  openRig,
  RIG_COSTS,
  RIG_PLANS,
  timeUpdates,
  type RigOptions,
  type RigPlan,
  type TimedOperation,
} from './calibration-rig.js';
import {
  addTimes,
  fitCosts,
  fitRates,
  middleContention,
  type SizeContention,
  type SizeTimes,
} from './fit-costs.js';
import type { CalibratedRate } from './fit-rate.js';
import type { CostName, Machine } from './machine.js';
import { SUBGROUP_GRANULE, type Lane, type StateDType } from './schedule.js';

/** What {@link calibrate} measured. */
export interface Calibration {
  readonly version: 1;
  /** The adapter and the settings that it holds for. */
  readonly subject: CalibrationSubject;
  /** All times that were taken, by subgroup size. */
  readonly measured: readonly SizeTimes[];
  readonly rates: Readonly<Record<CostName, CalibratedRate>>;
  /** What operations cost each other, by subgroup size. */
  readonly contention: readonly SizeContention[];
  /** The host's own: copy, Adam by threads, and storage where a store was given. */
  readonly host: HostRates;
  /** The description that planners and the simulator take. */
  readonly machine: Machine;
}

/** What a calibration holds for. */
export interface CalibrationSubject {
  readonly adapter: string;
  readonly threads: number;
  readonly parameterDType: StateDType;
  /** Cores of the host, where the caller says so. */
  readonly cores: number;
}

/** Options of {@link calibrate}. */
export interface CalibrateOptions {
  /** Threads of the CPU's kernels. Default: 1. */
  readonly threads?: number;
  /** Parameter type of the plans to come. Default: 'f32'. */
  readonly parameterDType?: StateDType;
  /**
   * Cores that the driver's threads and ours share, where the driver computes on the CPU; 0 for a
   * GPU. Default: 0.
   */
  readonly softwareCores?: number;
  /** Parameters of the largest sample. Default: 1,048,576. */
  readonly largest?: number;
  /** Subgroup sizes to measure, ascending. Default: 1/8, 1/4, 1/2 and all of `largest`. */
  readonly sizes?: readonly number[];
  /** Parameters of the plans to come, which decides what caches hold. Default: 12 x `largest`. */
  readonly parameterCount?: number;
  /** Runs per size. Default: 5. */
  readonly runs?: number;
  /** A store to measure too; blobs under `calibration/` are written and deleted. Default: none. */
  readonly store?: Pick<BlobStore, 'put' | 'get' | 'delete'>;
  /** Checked before each run. */
  readonly signal?: AbortSignal;
  /** Clock, milliseconds. Default: `performance.now`. */
  readonly now?: () => number;
}

/** Whether a saved calibration was made on this device with these settings. */
export function isCalibrationOf(saved: Calibration, device: VramDevice, options: CalibrateOptions) {
  return JSON.stringify(saved.subject) === JSON.stringify(subjectOf(device, options));
}

function subjectOf(device: VramDevice, options: CalibrateOptions): CalibrationSubject {
  const { vendor, architecture, device: name, description } = device.adapter;
  return {
    adapter: [vendor, architecture, name, description].join('/'),
    threads: options.threads ?? 1,
    parameterDType: options.parameterDType ?? 'f32',
    cores: options.softwareCores ?? 0,
  };
}

/** Most subgroups of a rig. */
const MOST_SUBGROUPS = 64;

async function measureSize(
  device: VramDevice,
  options: Omit<RigOptions, 'plan'>,
  runs: number,
): Promise<SizeTimes> {
  const { size, subgroups } = options;
  const endMs: number[] = [];
  const operations: Record<TimedOperation, number[]> = {
    ...{ adam: [], cast: [], push: [], stageIn: [], gpuAdam: [], stageOut: [] },
  };
  const updates: Record<RigPlan, number[]> = {
    ...{ host: [], streamed: [], resident: [], mixed: [], sparse: [] },
  };
  for (const plan of RIG_PLANS) {
    updates[plan].push(...(await timeUpdates(device, { ...options, plan, runs })));
  }
  for (const plan of ['host', 'streamed'] as const) {
    const rig = await openRig(device, { ...options, plan });
    try {
      // By turns, so that what disturbs the machine for a while disturbs all alike.
      for (let run = 0; run < runs; run++) {
        endMs.push(await rig.endMs());
        for (const name of RIG_COSTS[plan]) operations[name].push(await rig.operationMs(name));
      }
    } finally {
      await rig.dispose();
    }
  }
  return { size, subgroups, operations, updates, endMs };
}

/**
 * Measures and fits.
 * @throws VramError `aborted`, `out-of-memory`, `device-lost`; `invalid-argument` for sizes that do
 * not ascend.
 */
export async function calibrate(
  device: VramDevice,
  options: CalibrateOptions = {},
): Promise<Calibration> {
  const { largest = 1 << 20, runs = 5, now = () => performance.now(), threads = 1 } = options;
  const sizes = sizesOf(options.sizes ?? [1 / 8, 1 / 4, 1 / 2, 1].map((share) => share * largest));
  const subject = subjectOf(device, options);
  const { parameterDType } = subject;
  const { store, signal, parameterCount = 12 * largest } = options;
  const stop = signal === undefined ? {} : { signal };
  const measured: SizeTimes[] = [];
  for (const size of sizes) {
    const subgroups = Math.min(MOST_SUBGROUPS, Math.max(4, Math.ceil(parameterCount / size)));
    const rig = { size, subgroups, threads, parameterDType, now, ...stop };
    measured.push(await measureSize(device, rig, runs));
  }
  const host = await calibrateHost({
    ...{ threads: Math.max(2, threads), largest, runs, now },
    ...(store === undefined ? {} : { store }),
    ...stop,
  });
  return complete(subject, measured, host);
}

/**
 * Two calibrations of one subject as one with the runs of both: what else the machine did during
 * one of them then counts for less. The host's own rates are those of the second.
 * @throws VramError `invalid-argument` where subjects or sizes differ.
 */
export function mergeCalibrations(first: Calibration, second: Calibration): Calibration {
  const subjects = [first, second].map(({ subject }) => JSON.stringify(subject));
  assertArgument(subjects[0] === subjects[1], 'the calibrations are of different subjects');
  const sizes = [first, second].map(({ measured }) => measured.map(({ size }) => size).join());
  assertArgument(sizes[0] === sizes[1], `the calibrations have sizes ${sizes.join(' and ')}`);
  const measured = first.measured.map((times, at) => addTimes(times, second.measured[at] ?? times));
  return complete(second.subject, measured, second.host);
}

/**
 * The machine for plans with subgroups of `size` parameters: with what operations cost each other
 * at the measured size nearest to that, and not at the middle one.
 */
export function machineAt({ machine, contention }: Calibration, size: number): Machine {
  const distance = (each: SizeContention): number => Math.abs(Math.log(each.size / size));
  const [nearest] = [...contention].sort((a, b) => distance(a) - distance(b));
  if (nearest === undefined) return machine;
  const { queue, host } = nearest;
  return { ...machine, contention: { queue, host } };
}

function complete(
  subject: CalibrationSubject,
  measured: readonly SizeTimes[],
  host: HostRates,
): Calibration {
  const rates = fitRates(measured, subject.parameterDType);
  const alone = machineOf(subject, rates, host);
  const { contention, ...fitted } = fitCosts(measured, alone, subject.parameterDType);
  const machine = { ...alone, ...fitted, contention: middleContention(contention) };
  return { version: 1, subject, measured, rates, contention, host, machine };
}

function sizesOf(sizes: readonly number[]): number[] {
  const whole = sizes.map((size) => {
    checkInteger('size', Math.ceil(size), 1);
    return Math.ceil(size / SUBGROUP_GRANULE) * SUBGROUP_GRANULE;
  });
  const ascend = whole.every((size, at) => size >= (whole[at - 1] ?? 0));
  assertArgument(ascend && whole.length > 0, `sizes ${sizes.join(', ')} do not ascend`);
  return [...new Set(whole)];
}

function machineOf(
  subject: CalibrationSubject,
  rates: Calibration['rates'],
  host: HostRates,
): Machine {
  const { adam, cast, stageIn, stageOut, gpuAdam, push } = rates;
  const latencyMs: Record<Lane, number> = {
    'cpu-adam': adam.fixedMs,
    cast: cast.fixedMs,
    upload: Math.min(push.fixedMs, stageIn.fixedMs),
    download: stageOut.fixedMs,
    gpu: gpuAdam.fixedMs,
  };
  return {
    name: `calibrated on ${subject.adapter}`,
    cpuAdamParamsPerSecond: adam.perSecond,
    castParamsPerSecond: cast.perSecond,
    upcastParamsPerSecond: cast.perSecond,
    gpuAdamParamsPerSecond: gpuAdam.perSecond,
    uploadBytesPerSecond: stageIn.perSecond,
    downloadBytesPerSecond: stageOut.perSecond,
    // The most that anything measured moved; more is not known to be there.
    hostBytesPerSecond: Math.max(
      2 * host.copy.perSecond,
      ...[adam, ...host.adamByThreads].map(({ perSecond }) => 28 * perSecond),
    ),
    latencyMs,
    queue: 'single',
    hostThreads: 'shared',
  };
}

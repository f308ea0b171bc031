/**
 * Measures the rates that plans rest on, on the machine at hand.
 *
 * Each rate is taken alone, end to end, by the very code that the executor runs: a fixed cost and a
 * cost per byte or parameter are fitted through four sizes (a line through the least of several
 * runs). Takes about a second per 50 MB/s; nothing is kept on the device.
 *
 * A table is plain JSON with the machine that it was measured on; `isCalibrationOf` says whether it
 * still holds, and a caller saves and reuses it.
 */
import { createTensor, throwIfAborted, type VramDevice } from '@vramkit/core';
import type { BlobStore } from '@vramkit/storage';
import { adamStep, completeAdam } from './adam/adam.js';
import { calibrateHost, type HostRates } from './calibrate-host.js';
import { DeviceState } from './device-state.js';
import { fitRate, type CalibratedRate } from './fit-rate.js';
import { HostMemory } from './host-memory.js';
import { HostPool } from './host-pool.js';
import type { Machine } from './machine.js';
import { deepOptimizerStates } from './planners/deep-optimizer-states.js';
import type { Lane, StateDType } from './schedule.js';
import { StateMover } from './state-mover.js';

/** What {@link calibrate} measured. */
export interface Calibration {
  readonly version: 1;
  /** The adapter and the settings that it holds for. */
  readonly subject: CalibrationSubject;
  readonly rates: Readonly<
    Record<'adam' | 'cast' | 'push' | 'stageIn' | 'stageOut' | 'gpuAdam', CalibratedRate>
  >;
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

/** Subgroups of each kind. */
const TURNS = 6;

type Work = () => Promise<void> | void;
interface Bench {
  readonly params: number;
  readonly work: Record<keyof Calibration['rates'], Work>;
  readonly dispose: () => Promise<void>;
}

/**
 * Measures and fits all rates.
 * @throws VramError `aborted`, `out-of-memory`, `device-lost`.
 */
export async function calibrate(
  device: VramDevice,
  options: CalibrateOptions = {},
): Promise<Calibration> {
  const { largest = 1 << 20, runs = 5, now = () => performance.now() } = options;
  const times = new Map<string, { work: number; ms: number[] }[]>();
  for (const share of [1 / 8, 1 / 4, 1 / 2, 1]) {
    const bench = await openBench(device, Math.max(1024, largest * share), options);
    try {
      for (const [name, work] of Object.entries(bench.work)) {
        const ms: number[] = [];
        // Every subgroup is touched once before it counts: first touches of memory are slow.
        for (let run = -TURNS; run < runs; run++) {
          throwIfAborted(options.signal);
          const start = now();
          await work();
          if (run >= 0) ms.push(now() - start);
        }
        const list = times.get(name) ?? [];
        list.push({ work: bench.params, ms });
        times.set(name, list);
      }
    } finally {
      await bench.dispose();
    }
  }
  const fit = (name: string, perParam: number): CalibratedRate =>
    fitRate((times.get(name) ?? []).map(({ work, ms }) => ({ work: work * perParam, ms })));
  const wide = subjectOf(device, options).parameterDType === 'f32' ? 4 : 2;
  const rates = {
    adam: fit('adam', 1),
    cast: fit('cast', 1),
    push: fit('push', wide),
    stageIn: fit('stageIn', 12),
    stageOut: fit('stageOut', 12),
    gpuAdam: fit('gpuAdam', 1),
  };
  const subject = subjectOf(device, options);
  const { threads = 1, store, signal } = options;
  const host = await calibrateHost({
    ...{ threads: Math.max(2, threads), largest, runs, now },
    ...(store === undefined ? {} : { store }),
    ...(signal === undefined ? {} : { signal }),
  });
  return { version: 1, subject, rates, host, machine: machineOf(subject, rates, host) };
}

function machineOf(
  subject: CalibrationSubject,
  rates: Calibration['rates'],
  host: HostRates,
): Machine {
  const { adam, cast, stageIn, stageOut, gpuAdam, push } = rates;
  const cores = subject.cores;
  const latencyMs: Record<Lane, number> = {
    'cpu-adam': adam.fixedMs,
    cast: cast.fixedMs,
    upload: Math.min(push.fixedMs, stageIn.fixedMs),
    download: stageOut.fixedMs,
    gpu: gpuAdam.fixedMs,
  };
  const threads = Math.min(subject.threads, Math.max(1, cores));
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
    ...(cores > 0
      ? {
          cores: {
            available: cores,
            used: { 'cpu-adam': threads, cast: threads, upload: 1, download: 1, gpu: cores },
          },
        }
      : {}),
  };
}

/**
 * The executor's own parts over host and streamed subgroups of `count` parameters, which take
 * turns: a plan never finds its state in a cache either.
 */
async function openBench(
  device: VramDevice,
  count: number,
  options: CalibrateOptions,
): Promise<Bench> {
  const size = Math.ceil(count / 1024) * 1024;
  const layout = {
    parameterCount: 2 * TURNS * size,
    subgroupSize: size,
    slots: 1,
    parameterDType: options.parameterDType ?? 'f32',
  } as const;
  const schedule = deepOptimizerStates(layout, { stride: 2 });
  const host = new HostMemory(schedule);
  const state = new DeviceState(device, schedule, device.memory);
  const pool = new HostPool(host.memory, { threads: options.threads ?? 1 });
  const mover = new StateMover(schedule, state, host, pool);
  const shape = [size];
  {
    using gradient = createTensor(device, {
      dtype: 'f32',
      shape,
      kind: 'gradients',
      label: 'calibration',
    });
    gradient.write(new Float32Array(size).fill(0.1));
    for (let turn = 0; turn < TURNS; turn++) state.keepGradient(2 * turn + 1, gradient, false);
    await device.settle();
  }
  const step = adamStep(completeAdam({}), 1);
  let turn = 0;
  const execute = async (kind: string, streamed: 0 | 1, wait: boolean): Promise<void> => {
    turn = (turn + 1) % TURNS;
    const subgroup = 2 * turn + streamed;
    const found = schedule.operations.find(
      (operation) => operation.kind === kind && operation.subgroup === subgroup,
    );
    if (found !== undefined) await mover.execute(found, 0, step);
    if (wait) await device.settle();
  };
  return {
    params: size,
    work: {
      adam: () => execute('adam', 0, false),
      cast: () => execute('cast', 0, false),
      push: () => execute('push', 0, true),
      stageIn: () => execute('stage-in', 1, true),
      gpuAdam: () => execute('adam', 1, true),
      stageOut: () => execute('stage-out', 1, false),
    },
    dispose: async () => {
      await pool.dispose();
      state.dispose();
    },
  };
}

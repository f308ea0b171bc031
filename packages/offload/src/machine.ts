/**
 * What a planner and the simulator know of a machine: rates, latencies, and which of its parts work
 * at the same time.
 *
 * A description is plain JSON. `calibrate()` measures one for the machine at hand; the ones named
 * in published-machines.ts come from published logs. A rate is what its lane reaches alone; lanes
 * that run together also share host memory (`hostBytesPerSecond`) and, where the driver computes on
 * the CPU, its cores.
 */
import { assertArgument } from '@vramkit/core';
import { LANES, type Lane } from './schedule.js';

/**
 * Operations of an update whose cost can be measured; see {@link Machine.curves}. Adam on the
 * device has two: on state that has just been staged in (`gpuAdam`), and on resident state.
 */
export type CostName =
  'adam' | 'cast' | 'push' | 'stageIn' | 'stageOut' | 'gpuAdam' | 'residentAdam';

/** Measured factors; 1 where operations do not disturb each other. */
export interface Contention {
  /**
   * How many times as long each of two operations of the queue (upload, download, device) takes
   * while both run; 2 is a queue in which they take turns. With a third one the excess doubles.
   */
  readonly queue: number;
  /** The same between the host's threads and the queue. */
  readonly host: number;
}

/** Milliseconds of one operation by the parameters that it works on, ascending. */
export type CostCurve = readonly { readonly params: number; readonly ms: number }[];

/** Rates of one machine, or of one rank's share of it. */
export interface Machine {
  /** Names the description; plans carry it as the measurement they rest on. */
  readonly name: string;
  /** Adam on the host, parameters per second, by all threads that the executor may use. */
  readonly cpuAdamParamsPerSecond: number;
  /** Narrowing f32 parameters to 16 bits on the host, parameters per second. */
  readonly castParamsPerSecond: number;
  /** Widening 16-bit gradients to f32 on the host, parameters per second. */
  readonly upcastParamsPerSecond: number;
  /** Adam on the device, parameters per second. */
  readonly gpuAdamParamsPerSecond: number;
  /** Host to device, end to end, bytes per second. */
  readonly uploadBytesPerSecond: number;
  /** Device to host, end to end, bytes per second. */
  readonly downloadBytesPerSecond: number;
  /** Host memory traffic, reads plus writes, bytes per second. */
  readonly hostBytesPerSecond: number;
  /** Fixed cost of one operation of each lane, milliseconds. */
  readonly latencyMs: Readonly<Record<Lane, number>>;
  /**
   * `'single'`: uploads, downloads and device work take turns, as on a WebGPU queue. `'streams'`:
   * each has its own, as with CUDA streams.
   */
  readonly queue: 'single' | 'streams';
  /**
   * `'shared'`: Adam and casts on the host take turns on one set of threads, as in this package's
   * executor. `'apart'`: each has threads of its own, as in released CUDA code.
   */
  readonly hostThreads: 'shared' | 'apart';
  /** Cores that lanes share; only where a driver computes on the CPU, else absent. */
  readonly cores?: {
    readonly available: number;
    /** Cores that an operation of each lane keeps busy. */
    readonly used: Readonly<Record<Lane, number>>;
  };
  /** What operations cost where that was measured; used instead of rate and latency. */
  readonly curves?: Readonly<Partial<Record<CostName, CostCurve>>>;
  /**
   * How operations that run at once slow each other, as measured; used instead of `queue`, `cores`
   * and `hostBytesPerSecond`. Absent: by those.
   */
  readonly contention?: Contention;
  /** From the end of the last operation until the host knows of it, milliseconds. Default: 0. */
  readonly endMs?: number;
}

/**
 * Milliseconds at `params` parameters: between two measured sizes by a straight line, below the
 * first by the line through the first two but never less than nothing, above the last in
 * proportion.
 */
export function costOf(curve: CostCurve, params: number): number {
  const last = curve.at(-1);
  const above = curve.findIndex((point) => point.params >= params);
  if (last === undefined) return 0;
  if (above < 0) return (last.ms * params) / last.params;
  const at = Math.max(1, above);
  const [low = last, high = low] = [curve[at - 1], curve[at]];
  if (high.params === low.params) return (low.ms * params) / low.params;
  const slope = (high.ms - low.ms) / (high.params - low.params);
  return Math.max(0, low.ms + slope * (params - low.params));
}

/** The same number for each lane. */
export function perLane(value: number): Record<Lane, number> {
  return { 'cpu-adam': value, cast: value, upload: value, download: value, gpu: value };
}

/**
 * Checks that rates are positive and latencies are not negative.
 * @throws VramError `invalid-argument` naming the member.
 */
export function checkMachine(machine: Machine): void {
  const rates = {
    cpuAdamParamsPerSecond: machine.cpuAdamParamsPerSecond,
    castParamsPerSecond: machine.castParamsPerSecond,
    upcastParamsPerSecond: machine.upcastParamsPerSecond,
    gpuAdamParamsPerSecond: machine.gpuAdamParamsPerSecond,
    uploadBytesPerSecond: machine.uploadBytesPerSecond,
    downloadBytesPerSecond: machine.downloadBytesPerSecond,
    hostBytesPerSecond: machine.hostBytesPerSecond,
  };
  for (const [name, rate] of Object.entries(rates)) {
    assertArgument(rate > 0, `${name} of machine '${machine.name}' must be above 0, is ${rate}`);
  }
  const { contention = { queue: 1, host: 1 }, endMs = 0 } = machine;
  for (const [name, factor] of Object.entries(contention)) {
    assertArgument(factor >= 1, `contention.${name} of machine '${machine.name}' is ${factor}`);
  }
  assertArgument(endMs >= 0, `endMs of machine '${machine.name}' is ${endMs}`);
  for (const lane of LANES) {
    const latency = machine.latencyMs[lane];
    assertArgument(latency >= 0, `latencyMs of lane '${lane}' must not be below 0, is ${latency}`);
  }
}

/** One of `ranks` equal ranks that share `machine`: every rate divided by `ranks`. */
export function rankShare(machine: Machine, ranks: number): Machine {
  assertArgument(ranks >= 1, `${ranks} ranks`);
  return {
    ...machine,
    cpuAdamParamsPerSecond: machine.cpuAdamParamsPerSecond / ranks,
    castParamsPerSecond: machine.castParamsPerSecond / ranks,
    upcastParamsPerSecond: machine.upcastParamsPerSecond / ranks,
    gpuAdamParamsPerSecond: machine.gpuAdamParamsPerSecond / ranks,
    uploadBytesPerSecond: machine.uploadBytesPerSecond / ranks,
    downloadBytesPerSecond: machine.downloadBytesPerSecond / ranks,
    hostBytesPerSecond: machine.hostBytesPerSecond / ranks,
  };
}

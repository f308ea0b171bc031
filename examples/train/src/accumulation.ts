/**
 * What accumulation does to the cost of offloading: with more passes for each update, the update
 * counts for less. The same bytes are read per pass, under a plan that offloads and one that does
 * not, in turn.
 */
import type { VramDevice } from '@vramkit/core';
import { gpuOnly, type Schedule } from '@vramkit/offload';
import type { Tf } from './tfjs.js';
import { train, type TrainOptions } from './trainer.js';

/** One number of passes. */
export interface AccumulationRow {
  readonly passes: number;
  /** Milliseconds of an iteration, the median: with everything on the device, and offloaded. */
  readonly residentMs: number;
  readonly offloadedMs: number;
  /** Share of the offloaded iteration that norm and update take. */
  readonly updateShare: number;
  readonly bytesPerSecond: number;
}

const STEPS = 5;

/** Measures each number of passes. */
export async function sweepAccumulation(
  device: VramDevice,
  tf: Tf,
  schedule: Schedule,
  options: Omit<TrainOptions, 'schedule'> & { readonly counts: readonly number[] },
): Promise<AccumulationRow[]> {
  const { counts, ...common } = options;
  const measure = async (own: Schedule, accumulation: number) => {
    const run = { ...common, schedule: own, accumulation, steps: STEPS };
    const { steps } = await train(device, tf, run);
    // The first step compiles kernels.
    const rest = steps.slice(1).sort((a, b) => total(a) - total(b));
    return rest[rest.length >> 1] ?? { modelMs: NaN, optimizerMs: NaN };
  };
  const rows: AccumulationRow[] = [];
  for (const passes of counts) {
    const resident = await measure(gpuOnly(schedule.layout), passes);
    const offloaded = await measure(schedule, passes);
    rows.push({
      passes,
      residentMs: total(resident),
      offloadedMs: total(offloaded),
      updateShare: offloaded.optimizerMs / total(offloaded),
      bytesPerSecond: (1e3 * passes * common.rows * common.length) / total(offloaded),
    });
  }
  return rows;
}

function total({ modelMs, optimizerMs }: { modelMs: number; optimizerMs: number }): number {
  return modelMs + optimizerMs;
}

/** Rows of a table. */
export function accumulationTable(rows: readonly AccumulationRow[]): string[][] {
  return [
    ['passes', '', 'no offload, ms', 'offloaded, ms', 'ratio', 'update of it', 'bytes/s'],
    ...rows.map(({ passes, residentMs, offloadedMs, updateShare, bytesPerSecond }) => [
      String(passes),
      '',
      residentMs.toFixed(1),
      offloadedMs.toFixed(1),
      (offloadedMs / residentMs).toFixed(3),
      `${(100 * updateShare).toFixed(1)} %`,
      bytesPerSecond.toFixed(0),
    ]),
  ];
}

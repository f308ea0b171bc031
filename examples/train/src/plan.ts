/** The plan of a run: its budget, and which planner decides. */
import { fail, type VramDevice } from '@vramkit/core';
import {
  auto,
  calibrate,
  deepOptimizerStates,
  gpuOnly,
  twinFlow,
  zeroOffload,
  type Schedule,
  type StateLayout,
} from '@vramkit/offload';

/** Names that a plan can be asked for by. */
export const PLANNERS = [
  'deepOptimizerStates',
  'auto',
  'zeroOffload',
  'twinFlow',
  'gpuOnly',
] as const;

/** One of {@link PLANNERS}. */
export type PlannerName = (typeof PLANNERS)[number];

/** Bytes of p, m and v alone. */
export function stateBytes(parameterCount: number): number {
  return 12 * parameterCount;
}

/**
 * A plan within `deviceBytes`.
 * @param options `ratio` and `stride` go to the planners that have them; `softwareCores` to the
 * calibration that `auto` rests on.
 * @throws VramError `out-of-memory` naming the bytes that are missing.
 */
export async function choosePlan(
  device: VramDevice,
  layout: StateLayout,
  options: {
    readonly planner: PlannerName;
    readonly stride: number;
    readonly ratio: number;
    readonly deviceBytes: number;
    readonly softwareCores: number;
  },
): Promise<Schedule> {
  const { planner, stride, ratio, deviceBytes, softwareCores } = options;
  const short = (missing: number): never =>
    fail('out-of-memory', `${planner} lacks ${missing} B of ${deviceBytes} B on the device`, {
      missing,
      deviceBytes,
    });
  if (planner === 'auto') {
    const largest = layout.subgroupSize * 2;
    const { machine } = await calibrate(device, { softwareCores, largest });
    const plan = auto(layout, { machine, budgets: { deviceBytes } });
    return 'infeasible' in plan ? short(plan.infeasible.deviceBytes) : plan.schedule;
  }
  const schedule = {
    deepOptimizerStates: () => deepOptimizerStates(layout, { stride, ratio }),
    zeroOffload: () => zeroOffload(layout),
    twinFlow: () => twinFlow(layout, { ratio }),
    gpuOnly: () => gpuOnly(layout),
  }[planner]();
  const { deviceBytes: own, stagingBytes } = schedule.footprint;
  const missing = own + stagingBytes - deviceBytes;
  return missing > 0 ? short(missing) : schedule;
}

/**
 * Deep Optimizer States (Maurya et al., 2024): of every k subgroups that are not resident, the last
 * is streamed through the device while the host updates the others.
 *
 * As in the released code the state of the streamed subgroup goes up and comes down in each step,
 * and its gradient never leaves the device. Differences: the stride can be chosen by the machine's
 * rates instead of by hand, and a tail shorter than k is updated on the host only where k > 1.
 */
import { assertArgument, dtypeBytes } from '@vramkit/core';
import { buildSchedule, subgroupCount } from '../build-schedule.js';
import type { Machine } from '../machine.js';
import { completeLayout, type Schedule, type StateLayout } from '../schedule.js';
import { bestStride } from '../stride.js';
import { splitSites, type Residents } from './twin-flow.js';

/** Options of {@link deepOptimizerStates}. */
export interface DeepOptimizerStatesOptions {
  /**
   * Every how many-th subgroup is streamed: 1 streams all, `Infinity` none, `'auto'` takes what is
   * fastest on `machine`. Default: 'auto'.
   */
  readonly stride?: number | 'auto';
  /** Rates behind `'auto'`. No default: `'auto'` needs it. */
  readonly machine?: Machine;
  /** Share of subgroups that is not resident, 0 to 1. Default: 1. */
  readonly ratio?: number;
  /** Which end of the order is resident. Default: 'tail'. */
  readonly residents?: Residents;
}

/**
 * A schedule that interleaves host and device updates.
 * @throws VramError `invalid-argument` for a stride that is not a positive integer or `Infinity`,
 * or `'auto'` without a machine.
 */
export function deepOptimizerStates(
  layout: StateLayout,
  options: DeepOptimizerStatesOptions = {},
): Schedule {
  const complete = completeLayout(layout);
  const count = subgroupCount(complete);
  const { ratio = 1, residents = 'tail' } = options;
  const stride = chooseStride(complete, options, count);
  const sites = splitSites(count, { ratio, residents }, (index) =>
    (index + 1) % stride === 0 ? 'streamed' : 'host',
  );
  return buildSchedule({
    planner: 'deepOptimizerStates',
    layout: complete,
    sites,
    stride: sites.includes('streamed') ? stride : null,
    blockingPush: false,
  });
}

function chooseStride(
  layout: Required<StateLayout>,
  { stride = 'auto', machine }: DeepOptimizerStatesOptions,
  count: number,
): number {
  if (stride === 'auto') {
    assertArgument(machine !== undefined, "stride 'auto' needs the rates of a machine");
    return bestStride(machine, dtypeBytes(layout.parameterDType, 1), Math.min(count, 32));
  }
  const isCount = stride === Infinity || (Number.isSafeInteger(stride) && stride >= 1);
  assertArgument(isCount, `stride ${stride} must be a positive integer or Infinity`);
  return stride;
}

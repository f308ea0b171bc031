/**
 * ZeRO-Offload (Ren et al., 2021): all state on the host, Adam on the CPU. The released code pushes
 * each subgroup's parameters before it updates the next (`blockingPush`); by default pushes run
 * behind.
 */
import { buildSchedule, subgroupCount } from '../build-schedule.js';
import { completeLayout, type Schedule, type StateLayout } from '../schedule.js';

/** Options of {@link zeroOffload}. */
export interface ZeroOffloadOptions {
  /** Whether an update waits for the push of the subgroup before. Default: false. */
  readonly blockingPush?: boolean;
}

/** A schedule with all state on the host, updated there. */
export function zeroOffload(layout: StateLayout, options: ZeroOffloadOptions = {}): Schedule {
  const complete = completeLayout(layout);
  const sites = new Array<'host'>(subgroupCount(complete)).fill('host');
  const blockingPush = options.blockingPush ?? false;
  return buildSchedule({
    planner: 'zeroOffload',
    layout: complete,
    sites,
    stride: null,
    blockingPush,
  });
}

/** Everything on the device: the plan to beat where memory allows it. */
import { buildSchedule, subgroupCount } from '../build-schedule.js';
import { completeLayout, type Schedule, type StateLayout } from '../schedule.js';

/** A schedule with all state resident on the device. */
export function gpuOnly(layout: StateLayout): Schedule {
  const complete = completeLayout(layout);
  const sites = new Array<'resident'>(subgroupCount(complete)).fill('resident');
  return buildSchedule({
    planner: 'gpuOnly',
    layout: complete,
    sites,
    stride: null,
    blockingPush: false,
  });
}

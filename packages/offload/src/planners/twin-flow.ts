/**
 * TwinFlow (ZeRO-Offload++, 2023): a fixed share of the subgroups is resident on the device, the
 * rest lives on the host. The number on the host is `floor(ratio x subgroups)`, so a small subgroup
 * size gives fine steps; the share that came out is `effective.ratio`.
 */
import { assertArgument } from '@vramkit/core';
import { buildSchedule, subgroupCount } from '../build-schedule.js';
import { completeLayout, type Schedule, type Site, type StateLayout } from '../schedule.js';

/** Which end of the order is resident: updated before the host's subgroups, or behind them. */
export type Residents = 'head' | 'tail';

/** Options of {@link twinFlow}. */
export interface TwinFlowOptions {
  /** Share of subgroups on the host, 0 to 1. */
  readonly ratio: number;
  /** Default: 'tail', where pending pushes hide behind the residents' updates. */
  readonly residents?: Residents;
  /** Whether an update waits for the push of the subgroup before. Default: false. */
  readonly blockingPush?: boolean;
}

/** Where each of `count` subgroups is, with those that are not resident `movable`. */
export function splitSites(
  count: number,
  { ratio, residents = 'tail' }: TwinFlowOptions,
  movable: (index: number, movableCount: number) => Site,
): Site[] {
  assertArgument(ratio >= 0 && ratio <= 1, `ratio ${ratio} must be between 0 and 1`);
  const movableCount = Math.floor(ratio * count + 1e-9);
  const moved = Array.from({ length: movableCount }, (_, at) => movable(at, movableCount));
  const resident = new Array<Site>(count - movableCount).fill('resident');
  return residents === 'head' ? [...resident, ...moved] : [...moved, ...resident];
}

/** A schedule with a fixed split between host and device. */
export function twinFlow(layout: StateLayout, options: TwinFlowOptions): Schedule {
  const complete = completeLayout(layout);
  const sites = splitSites(subgroupCount(complete), options, () => 'host');
  const blockingPush = options.blockingPush ?? false;
  return buildSchedule({
    planner: 'twinFlow',
    layout: complete,
    sites,
    stride: null,
    blockingPush,
  });
}

/**
 * From "which subgroup where" to the operations of an update.
 *
 * Streamed subgroups are staged in one period ahead: the copy of the next streamed subgroup is
 * listed before the host work that hides it, and waits only for the slot it takes. With one slot
 * the copy up waits for the copy down of the subgroup before (as the released Deep Optimizer States
 * code does); with two, both directions run at once.
 *
 * Host subgroups alternate between two areas for narrowed parameters, so a cast waits for the push
 * before the last one.
 */
import { dtypeBytes } from '@vramkit/core';
import { measureFootprint, NARROW_AREAS } from './footprint.js';
import {
  checkSchedule,
  type Operation,
  type Schedule,
  type Site,
  type StateLayout,
  type Subgroup,
} from './schedule.js';

/** What a planner has decided. */
export interface Decision {
  readonly planner: string;
  readonly layout: Required<StateLayout>;
  /** Where each subgroup is updated, in order. */
  readonly sites: readonly Site[];
  readonly stride: number | null;
  /**
   * Whether a host subgroup's update waits until the one before has reached the device, as in
   * ZeRO-Offload; otherwise pushes run behind the updates.
   */
  readonly blockingPush: boolean;
}

/** Cuts the parameters into subgroups; the last one may be shorter. */
export function subgroupCount({ parameterCount, subgroupSize }: Required<StateLayout>): number {
  return Math.ceil(parameterCount / subgroupSize);
}

/** Collects operations and hands out their indices. */
class OperationList {
  readonly operations: Operation[] = [];
  readonly #layout: Required<StateLayout>;
  readonly #subgroups: readonly Subgroup[];

  constructor(layout: Required<StateLayout>, subgroups: readonly Subgroup[]) {
    this.#layout = layout;
    this.#subgroups = subgroups;
  }

  add(
    lane: Operation['lane'],
    kind: Operation['kind'],
    subgroup: number,
    after: readonly (number | undefined)[],
  ): number {
    const params = this.#subgroups[subgroup]?.count ?? 0;
    const staged = kind === 'stage-in' || kind === 'stage-out';
    const pushed = dtypeBytes(this.#layout.parameterDType, params);
    const bytes = staged ? 12 * params : kind === 'push' ? pushed : 0;
    const waits = after.filter((id) => id !== undefined);
    this.operations.push({ lane, kind, subgroup, params, bytes, after: waits });
    return this.operations.length - 1;
  }
}

/**
 * The schedule of a decision. Time and size O(subgroups).
 * @throws VramError `invalid-argument` where the sites do not match the layout.
 */
export function buildSchedule(decision: Decision): Schedule {
  const { layout, sites, planner, stride } = decision;
  const subgroups = sites.map((site, index): Subgroup => {
    const start = index * layout.subgroupSize;
    return { start, count: Math.min(layout.subgroupSize, layout.parameterCount - start), site };
  });
  const movable = subgroups.filter(({ site }) => site !== 'resident');
  const movableParams = movable.reduce((sum, { count }) => sum + count, 0);
  const schedule: Schedule = {
    version: 1,
    planner,
    layout,
    subgroups,
    operations: listOperations(decision, subgroups),
    effective: { ratio: movableParams / layout.parameterCount, stride },
    footprint: measureFootprint(subgroups, layout),
  };
  checkSchedule(schedule);
  return schedule;
}

function listOperations(decision: Decision, subgroups: readonly Subgroup[]): Operation[] {
  const { layout, blockingPush } = decision;
  const list = new OperationList(layout, subgroups);
  const streamed = subgroups.flatMap(({ site }, index) => (site === 'streamed' ? [index] : []));
  const stageIns = new Map<number, number>();
  const stageOuts: number[] = [];
  const pushes: number[] = [];
  let nextStreamed = 0;
  const stageNext = (): void => {
    const subgroup = streamed[nextStreamed];
    if (subgroup === undefined) return;
    const slotFree = stageOuts[nextStreamed - layout.slots];
    // A slot whose last user has not been listed yet cannot be waited for: stage later.
    if (nextStreamed >= layout.slots && slotFree === undefined) return;
    stageIns.set(subgroup, list.add('upload', 'stage-in', subgroup, [slotFree]));
    nextStreamed += 1;
  };
  stageNext();
  subgroups.forEach(({ site }, index) => {
    if (site === 'host') {
      const before = blockingPush ? pushes.at(-1) : undefined;
      const adam = list.add('cpu-adam', 'adam', index, [before]);
      // Masters are f32, so parameters of that type go up as they are.
      const cast =
        layout.parameterDType === 'f32'
          ? adam
          : list.add('cast', 'cast', index, [adam, pushes.at(-NARROW_AREAS)]);
      pushes.push(list.add('upload', 'push', index, [cast]));
      return;
    }
    if (site === 'resident') {
      list.add('gpu', 'adam', index, []);
      return;
    }
    if (!stageIns.has(index)) stageNext();
    const adam = list.add('gpu', 'adam', index, [stageIns.get(index)]);
    stageOuts.push(list.add('download', 'stage-out', index, [adam]));
    stageNext();
  });
  return list.operations;
}

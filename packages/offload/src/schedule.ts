/**
 * A schedule: which subgroup of the optimizer state is updated where, and every operation of one
 * update with what it waits for. Plain JSON, made by a planner, run by the executor, timed by the
 * simulator.
 *
 * Mental model: five lanes. An operation starts when the one before it in its lane has ended and
 * all of `after` have ended. `after` names earlier operations only, so the list order is one valid
 * sequential execution, and every other execution that respects lanes and `after` gives the same
 * numbers.
 *
 * ```
 *  host subgroup       adam (cpu-adam) ─▶ cast (cast) ─▶ push (upload)
 *  streamed subgroup   stage-in (upload) ─▶ adam (gpu) ─▶ stage-out (download)
 *  resident subgroup   adam (gpu)
 * ```
 *
 * A subgroup is a run of parameters whose p, m and v move together (ZeRO's sub_group_size). All but
 * the last have the same length, a multiple of {@link SUBGROUP_GRANULE}, so that sums over a fixed
 * pattern do not depend on how parameters are cut into subgroups.
 */
import { assertArgument, checkInteger } from '@vramkit/core';

/** What works on operations, one at a time each. */
export type Lane = 'cpu-adam' | 'cast' | 'upload' | 'download' | 'gpu';

/** All lanes, in the order in which they are reported. */
export const LANES: readonly Lane[] = ['cpu-adam', 'cast', 'upload', 'download', 'gpu'];

/** Parameters between possible subgroup boundaries. */
export const SUBGROUP_GRANULE = 1024;

/**
 * Where a subgroup's state lives and is updated: on the host; on the host but updated on the device
 * in each step; or on the device for good.
 */
export type Site = 'host' | 'streamed' | 'resident';

/** Element types of the parameters that the model computes with, and of flushed gradients. */
export type StateDType = 'f32' | 'f16' | 'bf16';

/** A run of parameters that is updated as one. */
export interface Subgroup {
  /** First parameter. */
  readonly start: number;
  /** Parameters. */
  readonly count: number;
  readonly site: Site;
}

/** What an operation does; the drawing above, and the parts of an iteration around an update. */
export type OperationKind =
  'adam' | 'cast' | 'push' | 'stage-in' | 'stage-out' | 'forward' | 'backward' | 'flush' | 'upcast';

/** One step of work in one lane. */
export interface Operation {
  readonly lane: Lane;
  readonly kind: OperationKind;
  /** Index of the subgroup, or -1. */
  readonly subgroup: number;
  /** Parameters worked on. */
  readonly params: number;
  /** Bytes over the link; 0 for work that moves none. */
  readonly bytes: number;
  /** Indices of earlier operations that must have ended. */
  readonly after: readonly number[];
}

/** How the state is cut and moved; the same for all planners. */
export interface StateLayout {
  /** Parameters in all. */
  readonly parameterCount: number;
  /** Parameters of one subgroup; rounded up to a multiple of {@link SUBGROUP_GRANULE}. */
  readonly subgroupSize: number;
  /** Element type of the parameters on the device. Masters are f32. Default: 'f32'. */
  readonly parameterDType?: StateDType;
  /** Element type in which gradients reach the optimizer. Default: 'f32'. */
  readonly flushDType?: StateDType;
  /** Device copies of p, m and v that streamed subgroups take turns in. Default: 2. */
  readonly slots?: number;
  /**
   * Whether a failed step leaves the state of the last completed one; doubles p, m and v.
   * Default: false.
   */
  readonly atomic?: boolean;
}

/** Bytes at the peak of a step, by tier. */
export interface MemoryFootprint {
  /** On the device: parameters, gradients, optimizer state and its slots. */
  readonly deviceBytes: number;
  /** In buffers of the device that the host can map. */
  readonly stagingBytes: number;
  /** On the host. */
  readonly hostBytes: number;
}

/** A complete plan of one optimizer update. */
export interface Schedule {
  readonly version: 1;
  /** The planner that made it. */
  readonly planner: string;
  readonly layout: Required<StateLayout>;
  readonly subgroups: readonly Subgroup[];
  readonly operations: readonly Operation[];
  /** What the plan comes to after rounding to whole subgroups. */
  readonly effective: {
    /** Share of parameters that are not resident. */
    readonly ratio: number;
    /** Every how many-th movable subgroup is streamed; `null` where none is. */
    readonly stride: number | null;
  };
  readonly footprint: MemoryFootprint;
}

/**
 * The layout with defaults filled in and the subgroup size rounded up.
 * @throws VramError `invalid-argument` for counts that are not positive integers.
 */
export function completeLayout(layout: StateLayout): Required<StateLayout> {
  checkInteger('parameterCount', layout.parameterCount, 1);
  checkInteger('subgroupSize', layout.subgroupSize, 1);
  const { parameterCount, parameterDType = 'f32', flushDType = 'f32', atomic = false } = layout;
  const slots = checkInteger('slots', layout.slots ?? 2, 1, 8);
  const subgroupSize = Math.ceil(layout.subgroupSize / SUBGROUP_GRANULE) * SUBGROUP_GRANULE;
  return { parameterCount, subgroupSize, parameterDType, flushDType, slots, atomic };
}

/**
 * Checks what a schedule promises: subgroups cut the parameters without gap or overlap, operations
 * wait for earlier ones only, and each subgroup is updated exactly once.
 * @throws VramError `invalid-argument` naming the first thing that is wrong.
 */
export function checkSchedule(schedule: Schedule): void {
  const { subgroups, operations, layout } = schedule;
  let next = 0;
  subgroups.forEach(({ start, count }, index) => {
    assertArgument(start === next, `subgroup ${index} starts at ${start}, not at ${next}`);
    const isLast = index === subgroups.length - 1;
    const full = count === layout.subgroupSize;
    assertArgument(
      full || (isLast && count > 0 && count < layout.subgroupSize),
      `subgroup ${index} has ${count} parameters`,
    );
    next = start + count;
  });
  assertArgument(next === layout.parameterCount, `subgroups cover ${next} parameters`);
  const updates = new Array<number>(subgroups.length).fill(0);
  operations.forEach(({ after, kind, subgroup }, index) => {
    for (const id of after) {
      assertArgument(id >= 0 && id < index, `operation ${index} waits for ${id}`);
    }
    if (kind === 'adam') updates[subgroup] = (updates[subgroup] ?? 0) + 1;
  });
  const wrong = updates.findIndex((count) => count !== 1);
  assertArgument(wrong < 0, `subgroup ${wrong} is updated ${updates[wrong]} times`);
}

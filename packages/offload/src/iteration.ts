/**
 * A whole training iteration around an update: forward, backward with the flush of gradients,
 * update.
 *
 * Backward runs over the subgroups in reverse order; the gradient of each one that the host updates
 * is flushed down as soon as it is there. A blocking flush makes backward wait until the host has
 * widened the gradient, as DeepSpeed did before its asynchronous copies. Accumulation repeats
 * forward and backward. The update starts when all gradients are there, because clipping needs
 * their norm.
 */
import { checkInteger, dtypeBytes } from '@vramkit/core';
import type { Operation, Schedule } from './schedule.js';
import type { ModelTimes } from './simulate.js';

/** Options of {@link buildIteration}. */
export interface IterationOptions {
  /** Time of one forward pass, milliseconds. Default: 0. */
  readonly forwardMs?: number;
  /** Device time of one backward pass, milliseconds. Default: 0. */
  readonly backwardMs?: number;
  /** Whether backward waits for each flush. Default: false. */
  readonly blockingFlush?: boolean;
  /** Forward and backward passes per update. Default: 1. */
  readonly accumulation?: number;
}

/** Operations of an iteration, and how long the model's own take. */
export interface Iteration {
  readonly operations: readonly Operation[];
  readonly times: ModelTimes;
  /** Index of the first operation of the update; those before it are forward and backward. */
  readonly updateFrom: number;
}

/** The operations of forward, backward and update; of the update alone where both take no time. */
export function buildIteration(schedule: Schedule, options: IterationOptions = {}): Iteration {
  const { forwardMs = 0, backwardMs = 0, blockingFlush = false } = options;
  const accumulation = checkInteger('accumulation', options.accumulation ?? 1, 1);
  const { parameterCount, flushDType } = schedule.layout;
  const times = {
    forwardMsPerParam: forwardMs / parameterCount,
    backwardMsPerParam: backwardMs / parameterCount,
  };
  const operations: Operation[] = [];
  if (forwardMs + backwardMs > 0) {
    for (let pass = 0; pass < accumulation; pass++) {
      const before = operations.length - 1;
      operations.push({
        lane: 'gpu',
        kind: 'forward',
        subgroup: -1,
        params: parameterCount,
        bytes: 0,
        after: before < 0 ? [] : [before],
      });
      let waitFor = operations.length - 1;
      for (let index = schedule.subgroups.length - 1; index >= 0; index--) {
        const { count = 0, site } = schedule.subgroups[index] ?? {};
        const step = { subgroup: index, params: count, bytes: 0 };
        operations.push({ ...step, lane: 'gpu', kind: 'backward', after: [waitFor] });
        const backward = operations.length - 1;
        waitFor = backward;
        if (site !== 'host') continue;
        const bytes = dtypeBytes(flushDType, count);
        operations.push({ ...step, lane: 'download', kind: 'flush', bytes, after: [backward] });
        // Gradients that come down as f32 were widened on the device.
        if (flushDType !== 'f32') {
          operations.push({
            ...step,
            lane: 'cast',
            kind: 'upcast',
            after: [operations.length - 1],
          });
        }
        if (blockingFlush) waitFor = operations.length - 1;
      }
    }
  }
  const updateFrom = operations.length;
  const barrier = gradientEnds(operations);
  for (const operation of schedule.operations) {
    const own = operation.after.map((id) => id + updateFrom);
    operations.push({ ...operation, after: own.length > 0 ? own : barrier });
  }
  return { operations, times, updateFrom };
}

/** The last operation of each lane: once they have ended, all gradients are where they belong. */
function gradientEnds(operations: readonly Operation[]): number[] {
  const last = new Map<string, number>();
  operations.forEach(({ lane }, id) => last.set(lane, id));
  return [...last.values()];
}

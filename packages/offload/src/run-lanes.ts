/**
 * Runs operations lane by lane: each starts when the one before it in its lane and all it waits for
 * have ended. The same rules as `simulate()`, on real time.
 *
 * The first failure stops the rest: what has not started does not start, and the call rejects only
 * when what had started has ended, so nothing writes behind the caller's back.
 */
import { throwIfAborted } from '@vramkit/core';
import type { Lane, Operation } from './schedule.js';

/** Options of {@link runLanes}. */
export interface RunLanesOptions {
  /** Checked before each operation starts. */
  readonly signal?: AbortSignal;
  /** Receives when each operation ran, milliseconds of `now`. */
  readonly onSpan?: (operation: Operation, startMs: number, endMs: number) => void;
  /** Clock. Default: `performance.now`. */
  readonly now?: () => number;
}

/**
 * Runs all of `operations` by `execute`.
 * @throws whatever the first failing operation threw; VramError `aborted`.
 */
export async function runLanes(
  operations: readonly Operation[],
  execute: (operation: Operation) => Promise<void> | void,
  options: RunLanesOptions = {},
): Promise<void> {
  const { signal, onSpan, now = () => performance.now() } = options;
  const tails = new Map<Lane, Promise<void>>();
  const ends: Promise<void>[] = [];
  let failure: { readonly error: unknown } | undefined;
  const runOne = async (operation: Operation, before: readonly (Promise<void> | undefined)[]) => {
    for (const each of before) await each;
    if (failure !== undefined) return;
    try {
      throwIfAborted(signal);
      const start = now();
      await execute(operation);
      onSpan?.(operation, start, now());
    } catch (error) {
      failure ??= { error };
    }
  };
  for (const operation of operations) {
    const before = [tails.get(operation.lane), ...operation.after.map((id) => ends[id])];
    const end = runOne(operation, before);
    tails.set(operation.lane, end);
    ends.push(end);
  }
  await Promise.all(ends);
  // Assigned in runOne, which the compiler does not follow.
  const failed = failure as { readonly error: unknown } | undefined;
  if (failed !== undefined) throw failed.error;
}

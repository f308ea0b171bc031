/**
 * Runs a schedule: an optimizer whose state lies where the plan says.
 *
 * A step: gradients come in per subgroup (`addGradient`, any number of passes), each rounded to the
 * flush type once, and summed in f32 on the host or on the device. `step()` then takes their norm,
 * decides on clipping and skipping, and runs the schedule's operations by lanes.
 *
 * What a step computes does not depend on the plan: every element goes through the same operations
 * in the same order, by the kernel of its site. Two plans differ only by the rounding of the CPU's
 * kernel and of the device's.
 *
 * Failure. Where a flush fails, the gradients are forgotten and must be added again. Up to the
 * update nothing has changed, and `step()` can be called again with the gradients that are there.
 * In the update, an atomic plan reads one side of the state and writes the other; the sides turn
 * only when all is done, so a failed step leaves the state, and the parameters on the device, of
 * the last completed one. Without `atomic` the state is then half old, half new: the optimizer
 * refuses everything but disposal. What was on a lost device only is gone with it.
 */
import {
  assertArgument,
  checkInteger,
  fail,
  type BufferRange,
  type Tensor,
  type VramDevice,
  VramError,
} from '@vramkit/core';
import { adamStep, completeAdam, type AdamOptions } from './adam/adam.js';
import { BOUNCE_BYTES, FLUSH_SLOTS } from './footprint.js';
import { DeviceState } from './device-state.js';
import { HostMemory } from './host-memory.js';
import { HostPool } from './host-pool.js';
import { gradientScaleOf, nextLossScale, type LossScale } from './loss-scale.js';
import {
  checkOptimizerOptions,
  checkRate,
  checkScale,
  type OptimizerOptions,
} from './optimizer-options.js';
import { runLanes } from './run-lanes.js';
import { checkSchedule, type Operation, type Schedule } from './schedule.js';
import { StateMover } from './state-mover.js';
import { Turn } from './turn.js';

/**
 * All state of an optimizer, [parameterCount] each; plain data that another plan can go on from.
 */
export interface OptimizerState {
  /** Steps completed. */
  readonly step: number;
  readonly parameters: Float32Array;
  readonly firstMoment: Float32Array;
  readonly secondMoment: Float32Array;
  readonly lossScale: LossScale;
}

/** What a step did. */
export interface StepResult {
  /** Steps completed, this one included. */
  readonly step: number;
  /** Whether a gradient was not finite, so that nothing was updated. */
  readonly skipped: boolean;
  /** Global norm of the gradient, the loss scale taken out. */
  readonly gradientNorm: number;
  /** Time of the update alone, milliseconds. */
  readonly updateMs: number;
}

/** An optimizer under a plan; see {@link createOptimizer}. */
export class OffloadedOptimizer {
  readonly schedule: Schedule;
  readonly #device: DeviceState;
  readonly #host: HostMemory;
  readonly #pool: HostPool;
  readonly #mover: StateMover;
  readonly #options: OptimizerOptions;
  readonly #adam: Required<AdamOptions>;
  readonly #now: () => number;
  readonly #passes: number[];
  readonly #flushes: Promise<void>[];
  #nextFlush = 0;
  /** Resolves when the flushes asked for so far were sent, in the order of the calls. */
  #sending: Promise<void> = Promise.resolve();
  #flushError: unknown;
  #step = 0;
  #side: 0 | 1 = 0;
  #lossScale: LossScale;
  #broken: VramError | undefined;
  readonly #turn = new Turn();
  #gpuEndMs = 0;
  #flushEndMs = 0;

  /** Use {@link createOptimizer}. */
  constructor(device: VramDevice, schedule: Schedule, options: OptimizerOptions) {
    checkSchedule(schedule);
    checkOptimizerOptions(options);
    this.schedule = schedule;
    this.#options = options;
    this.#adam = completeAdam(options.adam ?? {});
    this.#now = options.now ?? (() => performance.now());
    this.#host = new HostMemory(schedule);
    this.#device = new DeviceState(device, schedule, options.memory ?? device.memory);
    const { threads = 1, spawn } = options;
    this.#pool = new HostPool(this.#host.memory, {
      threads,
      ...(spawn === undefined ? {} : { spawn }),
    });
    this.#mover = new StateMover(schedule, this.#device, this.#host, this.#pool);
    this.#passes = schedule.subgroups.map(() => 0);
    this.#flushes = Array.from({ length: FLUSH_SLOTS }, () => Promise.resolve());
    const initial = options.lossScale === undefined ? 1 : (options.lossScale.initial ?? 65_536);
    this.#lossScale = { scale: initial, goodSteps: 0 };
  }

  /** Parameters on the device, by subgroup, of the plan's parameter type; the model reads them. */
  get weights(): readonly Tensor[] {
    return this.#device.weights;
  }

  /** Steps completed. */
  get stepCount(): number {
    return this.#step;
  }

  /** What the caller multiplies the loss by before the backward pass. */
  get lossScale(): number {
    return this.#lossScale.scale;
  }

  /** Bytes on the host: shared memory, and the buffer through which things go up. */
  get hostBytes(): number {
    return this.#host.sizeBytes + BOUNCE_BYTES;
  }

  #assertUsable(): void {
    if (this.#broken !== undefined) throw this.#broken;
  }

  #assertLive(): void {
    if (this.#broken?.code === 'disposed') throw this.#broken;
  }

  /**
   * Adds a gradient [count] f32 of one subgroup; repeated calls accumulate, and need not wait for
   * each other. Resolves when `source` may be reused by work submitted later; a flush goes on
   * behind it.
   * @throws VramError `invalid-argument` for an unknown subgroup, a range that is too small, or
   * during a step; `disposed`.
   */
  async addGradient(index: number, source: BufferRange): Promise<void> {
    this.#assertUsable();
    this.#turn.assertNot('step');
    const subgroup = this.schedule.subgroups[index];
    assertArgument(subgroup !== undefined, `there is no subgroup ${index}`);
    const { dtype = 'f32', sizeBytes } = source;
    assertArgument(
      dtype === 'f32' && sizeBytes >= 4 * subgroup.count,
      `subgroup ${index} has ${subgroup.count} gradients of f32, got ${sizeBytes} B of ${dtype}`,
    );
    if (subgroup.site !== 'host') {
      this.#device.keepGradient(index, source, (this.#passes[index] ?? 0) > 0);
      this.#passes[index] = (this.#passes[index] ?? 0) + 1;
      return;
    }
    const sent = this.#sending.then(() => this.#sendFlush(index, source));
    this.#sending = sent.catch(() => undefined);
    await sent;
  }

  /** One after the other: a slot has one user, and the first pass replaces what the sum holds. */
  async #sendFlush(index: number, source: BufferRange): Promise<void> {
    const slot = this.#nextFlush;
    this.#nextFlush = (slot + 1) % FLUSH_SLOTS;
    await this.#flushes[slot]?.catch((error: unknown) => (this.#flushError ??= error));
    this.#assertUsable();
    const keep = (this.#passes[index] ?? 0) > 0;
    const reached = this.#options.trace && this.#device.idle().then(this.#now);
    this.#device.sendFlush(slot, index, source);
    this.#passes[index] = (this.#passes[index] ?? 0) + 1;
    const flush = this.#mover.receiveFlush(slot, index, keep).then(async () => {
      const start = Math.max((await reached) ?? 0, this.#flushEndMs);
      this.#flushEndMs = Math.max(start, this.#now());
      this.#emit('download', 'flush', index, start, this.#flushBytes(index), this.#flushEndMs);
    });
    flush.catch(() => undefined); // Observed by step(), or kept for it by the slot's next user.
    this.#flushes[slot] = flush;
  }

  #flushBytes(index: number): number {
    const bytes = this.schedule.layout.flushDType === 'f32' ? 4 : 2;
    return bytes * (this.schedule.subgroups[index]?.count ?? 0);
  }

  /** Forgets the gradients that were added since the last step. */
  clearGradients(): void {
    this.#passes.fill(0);
  }

  /**
   * Updates all parameters by the gradients added so far. With a gradient that is not finite
   * nothing changes but the loss scale, and `skipped` is true.
   * @throws VramError `invalid-argument` where a subgroup has no gradient, or the rate of the step
   * is not a finite number from 0 on, or during another step or a move of the state; `aborted`,
   * `worker-lost`, `device-lost`: see the head of this file for what is left.
   */
  async step(options: { readonly signal?: AbortSignal } = {}): Promise<StepResult> {
    this.#assertUsable();
    return this.#turn.take('step', () => this.#run(options.signal));
  }

  async #run(signal: AbortSignal | undefined): Promise<StepResult> {
    await this.#sending;
    const missing = this.#passes.findIndex((passes) => passes === 0);
    assertArgument(missing < 0, `subgroup ${missing} has no gradient`);
    await this.#awaitFlushes();
    const { clipNorm = Infinity, lossScale, learningRate, trace } = this.#options;
    const normStart = this.#now();
    const scaledNorm = await this.#mover.gradientNorm();
    this.#emitPhase('gradient norm', normStart);
    const { scale } = this.#lossScale;
    const gradientNorm = scaledNorm / scale;
    if (!Number.isFinite(scaledNorm)) {
      if (lossScale) this.#lossScale = nextLossScale(this.#lossScale, false, lossScale);
      this.clearGradients();
      return { step: this.#step, skipped: true, gradientNorm, updateMs: 0 };
    }
    const next = this.#step + 1;
    const rate = checkRate(learningRate?.(next) ?? this.#adam.learningRate, next);
    const gradientScale = gradientScaleOf(scaledNorm, scale, clipNorm);
    const constants = adamStep({ ...this.#adam, learningRate: rate }, next, gradientScale);
    const start = this.#now();
    try {
      await runLanes(
        this.schedule.operations,
        (operation) => this.#mover.execute(operation, this.#side, constants),
        {
          now: this.#now,
          ...(signal === undefined ? {} : { signal }),
          ...(trace === undefined ? {} : { onSpan: this.#onSpan }),
        },
      );
      await this.#device.device.settle();
    } catch (error) {
      await this.#recover(error);
      throw error;
    }
    this.#emitPhase('update', start);
    this.#step = next;
    if (this.schedule.layout.atomic) this.#side = this.#side === 0 ? 1 : 0;
    if (lossScale) this.#lossScale = nextLossScale(this.#lossScale, true, lossScale);
    this.clearGradients();
    return { step: next, skipped: false, gradientNorm, updateMs: this.#now() - start };
  }

  /** A flush that failed leaves sums half added: all gradients must come again. */
  async #awaitFlushes(): Promise<void> {
    const results = await Promise.allSettled(this.#flushes);
    const failed = results.find((result) => result.status === 'rejected');
    const error: unknown = this.#flushError ?? failed?.reason;
    if (error === undefined) return;
    for (const slot of this.#flushes.keys()) this.#flushes[slot] = Promise.resolve();
    this.#flushError = undefined;
    this.clearGradients();
    throw error;
  }

  /** After a failed update: parameters on the device anew from the side that is whole. */
  async #recover(cause: unknown): Promise<void> {
    if (this.#broken !== undefined) return; // Disposed meanwhile.
    if (!this.schedule.layout.atomic) {
      this.#broken = new VramError(
        'invariant',
        'an update failed part way and the plan is not atomic: restore a saved state',
        { cause },
      );
      return;
    }
    if (this.#device.device.isLost) return;
    try {
      await this.#mover.writeAllWeights(this.#side);
    } catch (error) {
      if (this.#device.device.isLost) return;
      const message = 'the parameters on the device could not be made anew: restore a saved state';
      this.#broken = new VramError('invariant', message, { cause: error });
    }
  }

  readonly #onSpan = (operation: Operation, startMs: number, endMs: number): void => {
    const { lane, kind, subgroup, bytes } = operation;
    if (lane === 'gpu') {
      // Recording returns at once; the work itself ends when the queue says so, in order.
      void this.#device.device.gpuDevice.queue.onSubmittedWorkDone().then(
        () => {
          const start = Math.max(startMs, this.#gpuEndMs);
          this.#gpuEndMs = Math.max(start, this.#now());
          this.#emit(lane, kind, subgroup, start, bytes, this.#gpuEndMs);
        },
        () => undefined, // The device is lost, which the step reports.
      );
      return;
    }
    this.#emit(lane, kind, subgroup, startMs, bytes, endMs);
  };

  #emitPhase(label: string, startMs: number): void {
    const durationMs = this.#now() - startMs;
    this.#options.trace?.({ type: 'phase', timeMs: startMs, durationMs, label });
  }

  #emit(
    lane: string,
    kind: string,
    subgroup: number,
    startMs: number,
    bytes: number,
    endMs = this.#now(),
  ): void {
    const { trace } = this.#options;
    if (trace === undefined) return;
    const span = { timeMs: startMs, durationMs: endMs - startMs, label: `${kind} ${subgroup}` };
    if (lane === 'upload' || lane === 'download') {
      trace({ type: 'transfer', direction: lane, sizeBytes: bytes, ...span });
    } else trace({ type: 'phase', lane, ...span });
  }

  /**
   * All state of the last completed step; after a lost device only what was on the host.
   * @throws VramError `device-lost` where subgroups were resident on it; `invalid-argument` during
   * a step or a move of the state.
   */
  async readState(): Promise<OptimizerState> {
    this.#assertUsable();
    const arrays = await this.#turn.take('readState', () => this.#mover.readState(this.#side));
    return { step: this.#step, lossScale: this.#lossScale, ...arrays };
  }

  /**
   * Replaces all state; step count, moments and loss scale too where `state` has them.
   * @throws VramError `invalid-argument` for arrays of another length, a step or loss scale that
   * cannot be, or during a step or a move of the state; `disposed`.
   */
  async writeState(
    state: Pick<OptimizerState, 'parameters'> & Partial<OptimizerState>,
  ): Promise<void> {
    checkInteger('step', state.step ?? 0);
    if (state.lossScale !== undefined) checkScale('lossScale.scale', state.lossScale.scale);
    this.#assertLive();
    await this.#turn.take('writeState', () => this.#mover.writeState(this.#side, state));
    this.#assertLive();
    this.#step = state.step ?? 0;
    this.#lossScale = state.lossScale ?? this.#lossScale;
    this.#broken = undefined;
    this.clearGradients();
  }

  /**
   * Ends the threads and gives all device memory back; a step under way fails with `disposed`.
   * Idempotent.
   */
  async dispose(): Promise<void> {
    this.#broken = new VramError('disposed', 'the optimizer was disposed');
    await this.#sending;
    await Promise.allSettled(this.#flushes);
    await this.#pool.dispose();
    await this.#turn.ended();
    this.#device.dispose();
  }

  /** As `dispose()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/**
 * Takes the memory of a schedule, starts from `state` and is ready for gradients. The caller
 * disposes it.
 * @param state Parameters [parameterCount] f32, or a whole saved state to go on from.
 * @throws VramError `out-of-memory` before anything is changed; `invalid-argument` for a schedule
 * that `checkSchedule` rejects, or a setting out of its range.
 */
export async function createOptimizer(
  device: VramDevice,
  schedule: Schedule,
  state: Pick<OptimizerState, 'parameters'> & Partial<OptimizerState>,
  options: OptimizerOptions = {},
): Promise<OffloadedOptimizer> {
  const { parameterCount } = schedule.layout;
  if (state.parameters.length !== parameterCount) {
    fail('invalid-argument', `${state.parameters.length} parameters for ${parameterCount}`);
  }
  const optimizer = new OffloadedOptimizer(device, schedule, options);
  try {
    await optimizer.writeState(state);
  } catch (error) {
    await optimizer.dispose();
    throw error;
  }
  return optimizer;
}

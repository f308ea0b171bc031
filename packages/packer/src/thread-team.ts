/**
 * Threads with shared memory that do one job after the other together; what `PackThreads` is made
 * of.
 *
 * A job is one message to every thread and one answer from each. Where a thread dies or the caller
 * aborts, the job ends, and with it the team: others may be at work on it still, and are to be
 * ended by `dispose`.
 */
import { fail, throwIfAborted, VramError, type HostWorker, type SpawnWorker } from '@vramkit/core';
import { PACK_PROGRAM } from './pack-program.js';
import type { SharedArrays, ThreadFailure, ThreadJob } from './pack-thread.js';

/** Elements that are needed of the arrays. */
export interface ThreadRoom {
  readonly values: number;
  readonly codes: number;
  readonly scales: number;
  readonly moments: number;
  /** Of R and of U. */
  readonly factor: number;
  readonly errors: number;
}

const NONE: ThreadRoom = { values: 0, codes: 0, scales: 0, moments: 0, factor: 0, errors: 0 };

/** What threads have to answer. */
interface PendingJob {
  waiting: number;
  readonly failures: ThreadFailure[];
  readonly resolve: (failures: readonly ThreadFailure[]) => void;
  readonly reject: (error: unknown) => void;
}

/** See the head of this file. */
export class ThreadTeam {
  readonly #workers: readonly HostWorker[];
  #room = NONE;
  #arrays = sharedArrays(NONE);
  #pending: PendingJob | undefined;
  /** Why no further job can be done. */
  #ended: VramError | undefined;

  /** @throws VramError `unsupported` where the runtime has no threads. */
  constructor(count: number, spawn: SpawnWorker) {
    this.#workers = Array.from({ length: count }, () => spawn(PACK_PROGRAM));
    for (const worker of this.#workers) {
      worker.onMessage((message) => this.#receive(message));
      worker.onLost((reason) => this.#lose(reason));
    }
  }

  /** How many threads there are. */
  get count(): number {
    return this.#workers.length;
  }

  /** Memory with room for so much, before any job; where it has to grow, it is other memory. */
  arrays(room: Partial<ThreadRoom>): SharedArrays {
    const old = this.#room;
    const most = (key: keyof ThreadRoom): number => Math.max(old[key], room[key] ?? 0);
    this.#room = {
      values: most('values'),
      codes: most('codes'),
      scales: most('scales'),
      moments: most('moments'),
      factor: most('factor'),
      errors: most('errors'),
    };
    if (JSON.stringify(this.#room) !== JSON.stringify(old)) {
      this.#arrays = sharedArrays(this.#room);
      this.#share();
    }
    return this.#arrays;
  }

  #share(): void {
    const { count } = this;
    this.#workers.forEach((worker, index) => {
      worker.post({ kind: 'start', arrays: this.#arrays, index, count });
    });
  }

  /**
   * Has all threads do a job.
   * @throws VramError `aborted`; `worker-lost` where a thread died; `disposed`; else the error that
   * was met first in the order of rows.
   */
  async run(job: ThreadJob, signal: AbortSignal | undefined): Promise<void> {
    throwIfAborted(signal);
    if (this.#ended !== undefined) throw this.#ended;
    const stop = (): void => {
      this.#end(new VramError('aborted', 'packing was aborted', { cause: signal?.reason }));
    };
    signal?.addEventListener('abort', stop, { once: true });
    const failures = await new Promise<readonly ThreadFailure[]>((resolve, reject) => {
      this.#pending = { waiting: this.count, failures: [], resolve, reject };
      Atomics.store(this.#arrays.next, 0, 0);
      for (const worker of this.#workers) {
        worker.setBusy(true);
        worker.post(job);
      }
    }).finally(() => {
      signal?.removeEventListener('abort', stop);
      for (const worker of this.#workers) worker.setBusy(false);
    });
    const [first] = [...failures].sort((a, b) => a.row - b.row);
    if (first === undefined) return;
    if (first.typed === undefined) throw first.other;
    const { code, message, context, retryable } = first.typed;
    throw new VramError(code, message.slice(code.length + 2), { context, retryable });
  }

  #receive(message: unknown): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    // Only our program posts here, and only this.
    const failure = message as ThreadFailure | undefined;
    if (failure !== undefined) pending.failures.push(failure);
    if (--pending.waiting > 0) return;
    this.#pending = undefined;
    pending.resolve(pending.failures);
  }

  #lose(reason: string): void {
    const message = `a thread that packs ended: ${reason}; packing can be resumed`;
    this.#end(new VramError('worker-lost', message, { retryable: true, context: { reason } }));
  }

  #end(error: VramError): void {
    this.#ended ??= error;
    this.#pending?.reject(this.#ended);
    this.#pending = undefined;
  }

  /** Ends the threads, whatever they are doing. Idempotent. */
  async dispose(): Promise<void> {
    this.#end(new VramError('disposed', 'the threads were ended'));
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }
}

/** @throws VramError `unsupported` where threads can share nothing. */
function sharedArrays(room: ThreadRoom): SharedArrays {
  if (typeof SharedArrayBuffer === 'undefined') {
    fail('unsupported', 'threads need shared memory: isolate the page, or pack without them');
  }
  const words = (length: number): SharedArrayBuffer => new SharedArrayBuffer(4 * length);
  const floats = (length: number): Float64Array => new Float64Array(words(2 * length));
  return {
    values: new Float32Array(words(room.values)),
    codes: new Uint32Array(words(room.codes)),
    scales: new Uint32Array(words(room.scales)),
    moments: floats(room.moments),
    root: floats(room.factor),
    upper: floats(room.factor),
    errors: floats(room.errors),
    progress: new Int32Array(words(2)),
    next: new Int32Array(words(1)),
  };
}

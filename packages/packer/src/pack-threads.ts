/**
 * Threads that quantize a matrix together, for `packModel`.
 *
 * The weights lie in memory that all threads share, and so do the words that they make of them; a
 * message carries only what to do. That memory is taken once, for the largest matrix. Any number of
 * threads gives the same bytes: rows do not depend on each other, and what gptq needs of all
 * columns is summed in one order.
 *
 * A thread that dies, or an abort, ends the work on the matrix; the owner then ends all threads.
 */
import {
  fail,
  spawnWorker,
  throwIfAborted,
  VramError,
  type HostWorker,
  type SpawnWorker,
} from '@vramkit/core';
import type { HostMatrix } from './kernels/host-matrix.js';
import type { MatrixLayout } from './matrix-layout.js';
import { PACK_PROGRAM } from './pack-program.js';
import type { SharedArrays, ThreadFailure, ThreadJob } from './pack-thread.js';
import type { CheckedMatrix } from './quantize-matrix.js';
import type { QuantizerRecipe } from './quantizers/built-in.js';
import { DAMPING, type GptqOptions } from './quantizers/gptq.js';
import { requireMoments, type Quantizer } from './quantizers/quantizer.js';

/** Elements that a matrix needs of each array. */
export interface ThreadRoom {
  readonly values: number;
  readonly codes: number;
  readonly scales: number;
  /** 0 for quantizers that need no moments. */
  readonly moments: number;
  /** Of R and of U; 0 for all but gptq. */
  readonly factor: number;
}

/** The room that a matrix needs. */
export function roomOf(
  { rows, columns, codeWordsPerRow, scaleWordsPerRow }: MatrixLayout,
  { needs }: Quantizer,
  { make }: QuantizerRecipe,
): ThreadRoom {
  return {
    values: rows * columns,
    codes: rows * codeWordsPerRow,
    scales: rows * scaleWordsPerRow,
    moments: needs === 'moments' ? columns * columns : 0,
    factor: make === 'gptq' ? columns * columns : 0,
  };
}

/** Each thread comes back for rows about so many times a matrix, so that all end at one time. */
const TURNS = 8;

/** What threads have to answer. */
interface PendingJob {
  waiting: number;
  readonly failures: ThreadFailure[];
  readonly resolve: (failures: readonly ThreadFailure[]) => void;
  readonly reject: (error: unknown) => void;
}

/** See the head of this file; one matrix at a time. */
export class PackThreads {
  readonly #arrays: SharedArrays;
  readonly #workers: readonly HostWorker[];
  #pending: PendingJob | undefined;
  #lost: VramError | undefined;
  #disposed = false;
  /** What `moments` holds, and the damping of the factor of it that `upper` holds. */
  #moments: Float64Array | undefined;
  #damping: number | undefined;

  /**
   * Starts `count` threads with room for each of `rooms`.
   * @throws VramError `unsupported` where the runtime has no threads or they can share nothing.
   */
  constructor(count: number, rooms: readonly ThreadRoom[], spawn: SpawnWorker = spawnWorker) {
    if (typeof SharedArrayBuffer === 'undefined') {
      fail('unsupported', 'threads need shared memory: isolate the page, or set workers to 1');
    }
    const most = (key: keyof ThreadRoom): number =>
      rooms.reduce((length, room) => Math.max(length, room[key]), 0);
    const words = (length: number) => new SharedArrayBuffer(4 * length);
    const floats = (length: number) => new Float64Array(words(2 * length));
    this.#arrays = {
      values: new Float32Array(words(most('values'))),
      codes: new Uint32Array(words(most('codes'))),
      scales: new Uint32Array(words(most('scales'))),
      moments: floats(most('moments')),
      root: floats(most('factor')),
      upper: floats(most('factor')),
      progress: new Int32Array(words(2)),
      nextRow: new Int32Array(words(1)),
    };
    this.#workers = Array.from({ length: count }, () => spawn(PACK_PROGRAM));
    this.#workers.forEach((worker, index) => {
      worker.onMessage((message) => this.#receive(message));
      worker.onLost((reason) => this.#lose(reason));
      worker.post({ kind: 'start', arrays: this.#arrays, index, count });
    });
  }

  /** The memory for the weights of the next matrix; what it holds now is overwritten. */
  values(length: number): Float32Array {
    return this.#arrays.values.subarray(0, length);
  }

  /**
   * Quantizes a matrix by the quantizer that a recipe makes.
   * @throws VramError what the quantizer throws; `aborted`; `worker-lost` where a thread died.
   */
  async quantize(
    { layout, input }: CheckedMatrix,
    recipe: QuantizerRecipe,
    signal?: AbortSignal,
  ): Promise<HostMatrix> {
    const { values, codes, scales, nextRow } = this.#arrays;
    const { rows, codeWordsPerRow, scaleWordsPerRow } = layout;
    if (input.values.buffer !== values.buffer) values.set(input.values);
    if (recipe.make === 'gptq' || recipe.make === 'signRound') {
      this.#take(requireMoments(recipe.make, input));
    }
    // The options of gptq are what its maker was given.
    if (recipe.make === 'gptq') await this.#factor(layout.columns, recipe.options, signal);
    Atomics.store(nextRow, 0, 0);
    const chunk = Math.max(1, Math.ceil(rows / (TURNS * this.#workers.length)));
    const { importance } = input;
    await this.#run({ kind: 'rows', recipe, layout, importance, chunk }, signal);
    return {
      layout,
      codes: codes.slice(0, rows * codeWordsPerRow),
      scales: scales.slice(0, rows * scaleWordsPerRow),
    };
  }

  #take(moments: Float64Array): void {
    if (this.#moments === moments) return;
    this.#arrays.moments.set(moments);
    this.#moments = moments;
    this.#damping = undefined;
  }

  /** Matrices that multiply the same activations share the factor. */
  async #factor(columns: number, options: GptqOptions, signal?: AbortSignal): Promise<void> {
    const { damping = DAMPING } = options;
    if (this.#damping === damping) return;
    this.#arrays.progress.fill(columns);
    await this.#run({ kind: 'factor', columns, damping }, signal);
    this.#damping = damping;
  }

  /** Has all threads do a job; throws the error of the first rows that had one. */
  async #run(job: ThreadJob, signal: AbortSignal | undefined): Promise<void> {
    throwIfAborted(signal);
    if (this.#lost !== undefined) throw this.#lost;
    let stop = (): void => undefined;
    const failures = await new Promise<readonly ThreadFailure[]>((resolve, reject) => {
      this.#pending = { waiting: this.#workers.length, failures: [], resolve, reject };
      stop = () =>
        reject(new VramError('aborted', 'packing was aborted', { cause: signal?.reason }));
      signal?.addEventListener('abort', stop, { once: true });
      for (const worker of this.#workers) worker.post(job);
    }).finally(() => signal?.removeEventListener('abort', stop));
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
    if (this.#disposed) return;
    this.#lost ??= new VramError(
      'worker-lost',
      `a thread that packs ended: ${reason}; packing can be resumed`,
      { retryable: true, context: { reason } },
    );
    this.#pending?.reject(this.#lost);
  }

  /** Ends the threads, whatever they are doing. Idempotent. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }
}

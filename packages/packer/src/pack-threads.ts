/**
 * Threads that quantize a matrix together, or measure what widths make of it.
 *
 * The weights lie in memory that all threads share, and so do the words that they make of them; a
 * message carries only what to do. Any number of threads gives the same bytes and the same errors:
 * rows do not depend on each other, what gptq needs of all columns is summed in one order, and an
 * error is summed by one thread.
 */
import { checkInteger, fail, spawnWorker, type SpawnWorker } from '@vramkit/core';
import type { HostMatrix } from './kernels/host-matrix.js';
import type { MatrixLayout } from './matrix-layout.js';
import type { SharedArrays } from './pack-thread.js';
import { checkMatrix, quantizeMatrix, type QuantizeOptions } from './quantize-matrix.js';
import { recipeOf, type QuantizerRecipe } from './quantizers/built-in.js';
import { DAMPING, type GptqOptions } from './quantizers/gptq.js';
import { requireMoments, type Quantizer } from './quantizers/quantizer.js';
import { rtn } from './quantizers/rtn.js';
import { measureUnit, type MeasureOptions } from './scorers/output-error.js';
import type { UnitTensor } from './scorers/scorer.js';
import { ThreadTeam, type ThreadRoom } from './thread-team.js';

/** Each thread comes back for rows about so many times a matrix, so that all end at one time. */
const TURNS = 8;

/** Options of {@link PackThreads}. */
export interface PackThreadsOptions {
  /** How many threads, at least one. */
  readonly workers: number;
  /** Starts a thread. Default: Node's worker threads, or a page's workers. */
  readonly spawn?: SpawnWorker;
}

/**
 * Threads for quantizers of this package; another one stays on the thread of the caller. One matrix
 * at a time. After an abort or the loss of a thread nothing but `dispose` is left to do.
 *
 * Memory: the weights and words of the largest matrix so far; for quantizers that need moments a
 * copy of these, and for gptq twice their bytes beside it.
 * @example
 * ```ts
 * import { optRtn, PackThreads } from '@vramkit/packer';
 * const threads = new PackThreads({ workers: 2 });
 * const values = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i));
 * const options = { name: 'w', rows: 2, columns: 32, bits: 3, quantizer: optRtn() } as const;
 * const { codes } = await threads.quantize(values, options);
 * console.log(codes.length); // 4
 * await threads.dispose();
 * ```
 */
export class PackThreads {
  readonly #team: ThreadTeam;
  #busy = false;
  /** Shared memory with moments in it, and what the factor of them that is there was made with. */
  #held: { readonly arrays: SharedArrays; readonly square: number; factor?: string } | undefined;

  /**
   * Starts the threads.
   * @throws VramError `unsupported` where the runtime has no threads or no memory that they share,
   * which a page has where it is cross-origin isolated.
   */
  constructor({ workers, spawn = spawnWorker }: PackThreadsOptions) {
    this.#team = new ThreadTeam(checkInteger('workers', workers, 1), spawn);
  }

  /** Makes room for these matrices at once; to grow step by step would waste memory. */
  reserve(matrices: Iterable<readonly [layout: MatrixLayout, quantizer: Quantizer]>): void {
    const room = { values: 0, codes: 0, scales: 0, moments: 0, factor: 0 };
    for (const [layout, quantizer] of matrices) {
      const own = roomOf(layout, quantizer);
      for (const key of ['values', 'codes', 'scales', 'moments', 'factor'] as const) {
        room[key] = Math.max(room[key], own[key]);
      }
    }
    this.#team.arrays(room);
  }

  /**
   * Shared memory to read the next weights into, which then need no copy; what it holds now is
   * overwritten.
   */
  values(length: number): Float32Array {
    return this.#team.arrays({ values: length }).values.subarray(0, length);
  }

  /**
   * `quantizeMatrix` by all threads, with the same checks and bytes.
   * @throws VramError as that does; `aborted`; `worker-lost`; `disposed`.
   */
  async quantize(
    values: Float32Array,
    options: QuantizeOptions,
    signal?: AbortSignal,
  ): Promise<HostMatrix> {
    const { quantizer = rtn() } = options;
    const recipe = recipeOf(quantizer);
    if (recipe === undefined) return quantizeMatrix(values, options);
    return this.#alone(() => this.#quantize(values, options, [quantizer, recipe], signal));
  }

  async #quantize(
    values: Float32Array,
    options: QuantizeOptions,
    [quantizer, recipe]: readonly [Quantizer, QuantizerRecipe],
    signal: AbortSignal | undefined,
  ): Promise<HostMatrix> {
    const { layout, input } = checkMatrix(values, options);
    const { rows, columns, codeWordsPerRow, scaleWordsPerRow } = layout;
    const moments = quantizer.needs === 'moments' ? requireMoments(recipe.make, input) : undefined;
    const arrays = this.#team.arrays(roomOf(layout, quantizer));
    if (input.values.buffer !== arrays.values.buffer) arrays.values.set(input.values);
    if (moments !== undefined) this.#hold(arrays, moments);
    // The options of gptq are what its maker was given.
    if (recipe.make === 'gptq') await this.#factor(columns, recipe.options, signal);
    const chunk = Math.max(1, Math.ceil(rows / (TURNS * this.#team.count)));
    const { importance } = input;
    await this.#team.run({ kind: 'rows', recipe, layout, importance, chunk }, signal);
    return {
      layout,
      codes: arrays.codes.slice(0, rows * codeWordsPerRow),
      scales: arrays.scales.slice(0, rows * scaleWordsPerRow),
    };
  }

  /**
   * `measureUnit` of one tensor for each of some options, each by one thread.
   * @returns The errors, in the order of the options.
   * @throws VramError as that does; `aborted`; `worker-lost`; `disposed`.
   */
  async measure(
    tensor: UnitTensor,
    options: readonly MeasureOptions[],
    signal?: AbortSignal,
  ): Promise<number[]> {
    const widths = options.flatMap(({ quantizer = rtn(), ...how }) => {
      const recipe = recipeOf(quantizer);
      return recipe === undefined ? [] : [{ ...how, recipe }];
    });
    if (widths.length < options.length) {
      const unit = { id: tensor.name, layer: -1, tensors: [tensor] };
      return options.map((each) => measureUnit(unit, each));
    }
    const { values, moments, ...rest } = tensor;
    const [length, square] = [values.length, moments?.length ?? 0];
    const room = { values: length, moments: square, errors: options.length };
    return this.#alone(async () => {
      const arrays = this.#team.arrays(room);
      if (values.buffer !== arrays.values.buffer) arrays.values.set(values);
      if (moments !== undefined) this.#hold(arrays, moments);
      const job = { kind: 'measure', tensor: { ...rest, length, square }, widths } as const;
      await this.#team.run(job, signal);
      return Array.from(arrays.errors.subarray(0, options.length));
    });
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    if (this.#busy) fail('invalid-argument', 'these threads are at work on another matrix');
    this.#busy = true;
    try {
      return await work();
    } finally {
      this.#busy = false;
    }
  }

  #hold(arrays: SharedArrays, moments: Float64Array): void {
    const { length: square } = moments;
    const isHeld =
      this.#held?.arrays === arrays &&
      this.#held.square === square &&
      moments.every((value, i) => value === arrays.moments[i]);
    if (isHeld) return;
    arrays.moments.set(moments);
    this.#held = { arrays, square };
  }

  /** Matrices that multiply the same activations share the factor. */
  async #factor(columns: number, options: GptqOptions, signal?: AbortSignal): Promise<void> {
    const { damping = DAMPING, order = 'stored' } = options;
    const factor = `${damping} ${order}`;
    const held = this.#held;
    if (held === undefined || held.factor === factor) return;
    held.arrays.progress.fill(columns);
    delete held.factor;
    await this.#team.run({ kind: 'factor', columns, damping, order }, signal);
    held.factor = factor;
  }

  /** Ends the threads, whatever they are doing. Idempotent. */
  dispose(): Promise<void> {
    return this.#team.dispose();
  }
}

function roomOf(layout: MatrixLayout, quantizer: Quantizer): Omit<ThreadRoom, 'errors'> {
  const { rows, columns, codeWordsPerRow, scaleWordsPerRow } = layout;
  const square = columns * columns;
  return {
    values: rows * columns,
    codes: rows * codeWordsPerRow,
    scales: rows * scaleWordsPerRow,
    moments: quantizer.needs === 'moments' ? square : 0,
    factor: recipeOf(quantizer)?.make === 'gptq' ? square : 0,
  };
}

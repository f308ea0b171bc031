/**
 * The program of a thread that packs rows of matrices, or measures them; bundled into
 * `pack-program.ts`.
 *
 * Matrices lie in memory that all threads share. A job is the same message to each of them: they
 * take runs of rows from an atomic counter until none is left, write the words of these in place,
 * and answer. After an error no further rows are taken; all earlier ones were, so the error of the
 * first rows among the answers is the one that a single thread would have met.
 */
import { isVramError, type VramErrorCode, type VramErrorContext } from '@vramkit/core';
import { packRows } from './code-words.js';
import type { CodeBits, MatrixLayout } from './matrix-layout.js';
import type { QuantizerRecipe } from './quantizers/built-in.js';
import { gptq, gptqWith } from './quantizers/gptq.js';
import { hqq } from './quantizers/hqq.js';
import { columnsInOrder, inverseFactor, type ColumnOrder } from './quantizers/inverse-factor.js';
import { optRtn } from './quantizers/opt-rtn.js';
import type { Quantizer } from './quantizers/quantizer.js';
import { rtn } from './quantizers/rtn.js';
import { signRound } from './quantizers/sign-round.js';
import { measureUnit, type MeasureOptions } from './scorers/output-error.js';
import type { UnitTensor } from './scorers/scorer.js';

/** Memory that the threads and their owner share; each array has room for the largest tensor. */
export interface SharedArrays {
  /** Weights, [rows, columns]. */
  readonly values: Float32Array;
  /** Words of the packed matrix. */
  readonly codes: Uint32Array;
  readonly scales: Uint32Array;
  /** Second moments of activations, [columns, columns]. */
  readonly moments: Float64Array;
  /** See `FactorTeam`. */
  readonly root: Float64Array;
  readonly upper: Float64Array;
  readonly progress: Int32Array;
  /** Measured errors. */
  readonly errors: Float64Array;
  /** The first row, or width, that nobody has taken. */
  readonly next: Int32Array;
}

/** What a thread is told first. */
export interface StartThread {
  readonly kind: 'start';
  readonly arrays: SharedArrays;
  /** Number of this thread, and how many there are. */
  readonly index: number;
  readonly count: number;
}

/** Work for all threads together. */
export type ThreadJob =
  /** The factor that gptq needs of the moments. */
  | {
      readonly kind: 'factor';
      readonly columns: number;
      readonly damping: number;
      readonly order: ColumnOrder;
    }
  /** A matrix, `chunk` rows at a time. */
  | {
      readonly kind: 'rows';
      readonly recipe: QuantizerRecipe;
      readonly layout: MatrixLayout;
      readonly importance: Float32Array | undefined;
      readonly chunk: number;
    }
  /** The error of a tensor at each of some widths, one at a time. */
  | {
      readonly kind: 'measure';
      readonly tensor: Omit<UnitTensor, 'values' | 'moments'> & {
        /** Elements of its values and of its moments, 0 where it has none. */
        readonly length: number;
        readonly square: number;
      };
      readonly widths: readonly (Omit<MeasureOptions, 'quantizer'> & {
        readonly recipe: QuantizerRecipe;
      })[];
    };

/** Why a thread did not do its part. */
export interface ThreadFailure {
  /** First of the rows that it met the error in, or the width. */
  readonly row: number;
  /** A VramError, which a message would make a plain error of. */
  readonly typed?: {
    readonly code: VramErrorCode;
    readonly message: string;
    readonly context: VramErrorContext;
    readonly retryable: boolean;
  };
  /** Any other error. */
  readonly other?: unknown;
}

function failure(row: number, error: unknown): ThreadFailure {
  if (!isVramError(error)) return { row, other: error };
  const { code, context, retryable } = error;
  return { row, typed: { code, message: error.message, context, retryable } };
}

/** The quantizer of a recipe; gptq with the factor where it is there already. */
function quantizerOf({ make, options }: QuantizerRecipe, upper?: Float64Array): Quantizer {
  switch (make) {
    case 'gptq':
      return upper === undefined ? gptq(options) : gptqWith(() => upper, options);
    case 'hqq':
      return hqq(options);
    case 'optRtn':
      return optRtn(options);
    case 'rtn':
      return rtn(options);
    case 'signRound':
      return signRound(options);
  }
}

/** Takes rows until none is left. */
function packShare(
  { recipe, layout, importance, chunk }: ThreadJob & { readonly kind: 'rows' },
  arrays: SharedArrays,
): ThreadFailure | undefined {
  const { rows, columns, bits, groupSize, factors, codeWordsPerRow, scaleWordsPerRow } = layout;
  const { values, codes, scales, next } = arrays;
  const moments = arrays.moments.subarray(0, columns * columns);
  const quantizer = quantizerOf(recipe, arrays.upper);
  for (;;) {
    const first = Atomics.add(next, 0, chunk);
    if (first >= rows) return undefined;
    const end = Math.min(rows, first + chunk);
    try {
      const input = {
        values: values.subarray(first * columns, end * columns),
        rows: end - first,
        columns,
        // The layout of an affine matrix has the bits of a code.
        bits: bits as CodeBits,
        groupSize,
        factors,
        importance,
        moments,
      };
      const words = packRows(layout, quantizer.quantize(input));
      codes.set(words.codes, first * codeWordsPerRow);
      scales.set(words.scales, first * scaleWordsPerRow);
    } catch (error) {
      Atomics.store(next, 0, rows);
      return failure(first, error);
    }
  }
}

/** This thread's part of the factor. */
function factorShare(
  job: ThreadJob & { readonly kind: 'factor' },
  { index, count, arrays }: StartThread,
): ThreadFailure | undefined {
  try {
    const order = columnsInOrder(arrays.moments, job.columns, job.order);
    inverseFactor(arrays.moments, order, job.damping, { index, count, ...arrays });
    return undefined;
  } catch (error) {
    return failure(0, error);
  }
}

/** Takes widths until none is left. */
function measureShare(
  { tensor, widths }: ThreadJob & { readonly kind: 'measure' },
  { values, moments, errors, next }: SharedArrays,
): ThreadFailure | undefined {
  const { length, square, ...rest } = tensor;
  const own = {
    ...rest,
    values: values.subarray(0, length),
    moments: square === 0 ? undefined : moments.subarray(0, square),
  };
  const unit = { id: tensor.name, layer: -1, tensors: [own] };
  for (;;) {
    const index = Atomics.add(next, 0, 1);
    const width = widths[index];
    if (width === undefined) return undefined;
    try {
      errors[index] = measureUnit(unit, { ...width, quantizer: quantizerOf(width.recipe) });
    } catch (error) {
      Atomics.store(next, 0, widths.length);
      return failure(index, error);
    }
  }
}

/** Answers the messages of one owner. */
function answer(post: (message: unknown) => void): (message: StartThread | ThreadJob) => void {
  let thread: StartThread | undefined;
  return (message) => {
    if (message.kind === 'start') thread = message;
    else if (thread === undefined) throw new Error('a job before the start');
    else if (message.kind === 'rows') post(packShare(message, thread.arrays));
    else if (message.kind === 'measure') post(measureShare(message, thread.arrays));
    else post(factorShare(message, thread));
  };
}

const port = globalThis.process?.getBuiltinModule?.('node:worker_threads').parentPort;
if (port)
  port.on(
    'message',
    answer((message) => port.postMessage(message)),
  );
else {
  const receive = answer((message) => globalThis.postMessage(message));
  globalThis.onmessage = ({ data }) => receive(data);
}

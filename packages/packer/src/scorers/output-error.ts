/**
 * The error that a width really makes: the unit is quantized and compared.
 *
 * With moments of the activations it is the mean squared change of the outputs; else the squared
 * error of the weights, each column weighted by its importance where there is one. It is what
 * allocators minimise; as a score it is the error at one width.
 */
import type { CodeBits, FactorFormat } from '../matrix-layout.js';
import { matrixValues } from '../kernels/host-matrix.js';
import { quantizeMatrix, type GroupChoice } from '../quantize-matrix.js';
import { outputErrorOf } from '../quantizers/moments.js';
import type { Quantizer } from '../quantizers/quantizer.js';
import type { LoadedUnit, Scorer, UnitTensor } from './scorer.js';

/** How a unit is quantized to measure it. */
export interface MeasureOptions {
  /** The width to measure. */
  readonly bits: CodeBits;
  /** Default: 32. */
  readonly groupSize?: GroupChoice;
  /** How scales and minimums are stored. Default: 'f16'. */
  readonly factors?: FactorFormat | undefined;
  /** Default: `rtn()`. */
  readonly quantizer?: Quantizer;
  /** What to weigh errors by. Default: 'outputs' where a tensor has moments, else 'importance'. */
  readonly by?: 'outputs' | 'importance' | 'weights';
}

/** Error of one tensor at one width. */
function tensorError(tensor: UnitTensor, options: MeasureOptions): number {
  const { values, columns, moments, importance } = tensor;
  const { by = moments === undefined ? 'importance' : 'outputs' } = options;
  const stored = matrixValues(quantizeMatrix(values, { ...options, ...tensor }));
  if (by === 'outputs' && moments !== undefined) {
    const difference = Float64Array.from(values, (value, i) => (stored[i] ?? 0) - value);
    return outputErrorOf(difference, moments, columns);
  }
  const weights = by === 'weights' ? undefined : importance;
  let sum = 0;
  values.forEach((value, i) => {
    sum += (weights?.[i % columns] ?? 1) * ((stored[i] ?? 0) - value) ** 2;
  });
  return sum;
}

/** Error of a unit at one width, summed over its tensors. */
export function measureUnit(unit: LoadedUnit, options: MeasureOptions): number {
  return unit.tensors.reduce((sum, tensor) => sum + tensorError(tensor, options), 0);
}

/** The measured error at one width as a score. */
export function outputError(options: MeasureOptions): Scorer {
  return {
    name: `outputError-${options.bits}`,
    score: (unit) => measureUnit(unit, options),
  };
}

/** The error at one width weighted by importance, as llama.cpp's importance matrix weighs it. */
export function imatrixError(options: MeasureOptions): Scorer {
  return {
    name: `imatrix-${options.bits}`,
    score: (unit) => measureUnit(unit, { ...options, by: 'importance' }),
  };
}

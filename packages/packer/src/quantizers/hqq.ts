/**
 * Half-quadratic quantization: the minimum of each group moves so that a norm below 1 of the error
 * falls, which lets a few outliers be wrong and gets the many right.
 *
 * With q the codes and e the part of the error that the shrinkage keeps,
 *
 *     e = shrink(w - (q - z) s),  shrink(x) = sign(x) max(0, |x| - |x|^(p-1) / beta)
 *     z = mean(q - (w - e) / s),  beta grows by `BETA_GROWTH`
 *
 * The scale stays that of the range. It stops where the mean error no longer falls. The zero point
 * is stored as the minimum `-z s` and rounded once, at the end: a step of the loop is often smaller
 * than a step of what is stored, and fed back rounded it would stand still. Needs no data and
 * ignores importance.
 *
 * Source: Badri and Shaji, Half-Quadratic Quantization (2023).
 */
import { builtIn } from './built-in.js';
import { nearestCode } from './group-codes.js';
import { groupQuantizer, type GroupFit, type GroupOfWeights, type Quantizer } from './quantizer.js';
import { rtnFit } from './rtn.js';

/** Options of {@link hqq}. */
export interface HqqOptions {
  /** Most steps. Default: 20. */
  readonly iterations?: number;
  /** The norm's exponent p, in (0, 1]. Default: 0.7. */
  readonly exponent?: number;
}

const FIRST_BETA = 10;
const BETA_GROWTH = 1.01;

const plain = rtnFit('asymmetric');

function shrink(x: number, beta: number, exponent: number): number {
  const size = Math.abs(x);
  if (size === 0) return 0;
  return Math.sign(x) * Math.max(0, size - size ** (exponent - 1) / beta);
}

function fitGroup(group: GroupOfWeights, iterations: number, exponent: number): number {
  const { values, start, count, bits, codec } = group;
  const maxCode = 2 ** bits - 1;
  const first = plain.fit(group);
  const scale = codec.scaleOf(first);
  if (scale === 0) return first;
  let beta = FIRST_BETA;
  let minimum = codec.minimumOf(first);
  let best = minimum;
  let bestError = Infinity;
  for (let step = 0; step <= iterations; step++) {
    let error = 0;
    let zeroPoint = 0;
    for (let i = start; i < start + count; i++) {
      const value = values[i] ?? 0;
      const code = nearestCode(value, scale, minimum, maxCode);
      const difference = value - (scale * code + minimum);
      error += Math.abs(difference);
      // Errors in units of the scale, so that a matrix and a multiple of it get the same codes.
      zeroPoint += code - value / scale + shrink(difference / scale, beta, exponent);
    }
    if (error >= bestError) break;
    best = minimum;
    bestError = error;
    minimum = (-zeroPoint / count) * scale;
    beta *= BETA_GROWTH;
  }
  return codec.wordOf(scale, best);
}

/** Half-quadratic quantization; see the head of this file. */
export function hqq(options: HqqOptions = {}): Quantizer {
  return builtIn({ make: 'hqq', options }, groupQuantizer(hqqFit(options)));
}

/** The fit of {@link hqq}. */
export function hqqFit(options: HqqOptions = {}): GroupFit {
  const { iterations = 20, exponent = 0.7 } = options;
  return {
    name: 'hqq',
    maxCode: (bits) => 2 ** bits - 1,
    fit: (group) => fitGroup(group, iterations, exponent),
  };
}

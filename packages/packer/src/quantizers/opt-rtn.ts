/**
 * Round to nearest with a search for the scale: for each candidate, codes are chosen, scale and
 * minimum refitted to them by least squares, and the pair with the least error as stored is kept.
 *
 * `asymmetric` shrinks the range in steps and refits scale and minimum together. `symmetric` walks
 * a grid of inverse scales around the extreme weight and refits the scale alone: the grid of
 * AutoRound's OPT-RTN (200 steps to 0.75 of the codes' half range; for 2 bits 180 steps of 0.01).
 * Errors are weighted by the importance of the columns.
 *
 * Source: AutoRound (Intel, 2023-2025), `opt_rtn`; ggml's search for k-quants, from which the joint
 * refit of scale and minimum is taken.
 */
import { groupError, groupWord, minimumOf, nearestCode, scaleOf } from './group-codes.js';
import { groupQuantizer, type GroupFit, type GroupOfWeights, type Quantizer } from './quantizer.js';
import { centredWord, extremeOf, rtnFit } from './rtn.js';

/** Options of {@link optRtn}. */
export interface OptRtnOptions {
  /** Whether the minimum is free, or a fixed multiple of the scale. Default: 'asymmetric'. */
  readonly convention?: 'asymmetric' | 'symmetric';
}

const SHRINKS = 9;
const SHRINK_STEP = 0.06;

/** Keeps the pair with the least error. */
class Best {
  word: number;
  #error: number;
  readonly #group: GroupOfWeights;

  constructor(group: GroupOfWeights, word: number) {
    this.#group = group;
    this.word = word;
    this.#error = this.#errorOf(word);
  }

  #errorOf(word: number): number {
    const { values, start, count, column, bits, importance } = this.#group;
    return groupError(values, start, count, { word, maxCode: 2 ** bits - 1, importance, column });
  }

  offer(word: number): void {
    const error = this.#errorOf(word);
    if (error >= this.#error) return;
    this.#error = error;
    this.word = word;
  }
}

/**
 * Scale and minimum that fit the nearest codes of `word` best, or `word` where codes are all alike.
 */
function refit(group: GroupOfWeights, word: number): number {
  const { values, start, count, column, bits, importance } = group;
  const scale = scaleOf(word);
  const minimum = minimumOf(word);
  let [w, wq, wqq, wx, wqx] = [0, 0, 0, 0, 0];
  for (let i = 0; i < count; i++) {
    const value = values[start + i] ?? 0;
    const weight = importance?.[column + i] ?? 1;
    const code = nearestCode(value, scale, minimum, 2 ** bits - 1);
    w += weight;
    wq += weight * code;
    wqq += weight * code * code;
    wx += weight * value;
    wqx += weight * code * value;
  }
  const determinant = w * wqq - wq * wq;
  if (!(determinant > 1e-9 * w * wqq)) return word;
  const fitted = (w * wqx - wq * wx) / determinant;
  return groupWord(fitted, (wx - fitted * wq) / w);
}

function searchAsymmetric(group: GroupOfWeights): number {
  const { values, start, count, bits } = group;
  const maxCode = 2 ** bits - 1;
  let lowest = Infinity;
  let highest = -Infinity;
  for (let i = start; i < start + count; i++) {
    lowest = Math.min(lowest, values[i] ?? 0);
    highest = Math.max(highest, values[i] ?? 0);
  }
  const best = new Best(group, rtnFit('asymmetric').fit(group));
  if (highest === lowest) {
    best.offer(groupWord(0, lowest));
    return best.word;
  }
  const centre = (lowest + highest) / 2;
  for (let i = 0; i <= SHRINKS; i++) {
    const half = ((highest - lowest) / 2) * (1.03 - SHRINK_STEP * i);
    const word = groupWord((2 * half) / maxCode, centre - half);
    best.offer(word);
    best.offer(refit(group, word));
  }
  return best.word;
}

function searchSymmetric(group: GroupOfWeights): number {
  const { values, start, count, column, bits, importance } = group;
  const middle = 2 ** (bits - 1);
  const extreme = extremeOf(group);
  const best = new Best(group, centredWord(-extreme / middle, middle));
  if (extreme === 0) return best.word;
  const reach = bits === 2 ? 90 : 100;
  const step = bits === 2 ? 0.01 : (0.75 * middle) / 100;
  let bestGain = -Infinity;
  let bestScale = 0;
  for (let i = -reach; i <= reach; i++) {
    const inverse = -(middle - step * i) / extreme;
    let wqx = 0;
    let wqq = 0;
    for (let k = 0; k < count; k++) {
      const value = values[start + k] ?? 0;
      const code = Math.min(Math.max(Math.round(value * inverse), -middle), middle - 1);
      const weight = importance?.[column + k] ?? 1;
      wqx += weight * code * value;
      wqq += weight * code * code;
    }
    // With the best scale the error falls by this much: no second pass over the group is needed.
    const gain = wqq > 0 ? (wqx * wqx) / wqq : 0;
    if (gain <= bestGain) continue;
    bestGain = gain;
    bestScale = wqq > 0 ? wqx / wqq : 0;
  }
  best.offer(centredWord(bestScale, middle));
  return best.word;
}

/** Round to nearest with a search; about 30 times the work of `rtn`. */
export function optRtn(options: OptRtnOptions = {}): Quantizer {
  return groupQuantizer(optRtnFit(options.convention ?? 'asymmetric'));
}

/** The fit of {@link optRtn}. */
export function optRtnFit(convention: 'asymmetric' | 'symmetric'): GroupFit {
  return {
    name: `optRtn-${convention}`,
    maxCode: (bits) => 2 ** bits - 1,
    fit: convention === 'asymmetric' ? searchAsymmetric : searchSymmetric,
  };
}

/**
 * Round to nearest with a search for the scale: for each candidate, codes are chosen, scale and
 * minimum refitted to them by least squares, and the pair with the least error as stored is kept.
 *
 * `asymmetric` starts from nine ranges, each end cut by one of three parts of the whole, and from
 * each chooses codes and refits scale and minimum in turn until the error stops falling: Lloyd's
 * iteration over evenly spaced levels, which finds the optimum near its start. `symmetric` walks
 * a grid of inverse scales around the extreme weight and refits the scale alone: the grid of
 * AutoRound's OPT-RTN (200 steps to 0.75 of the codes' half range; for 2 bits about 180 steps of
 * 0.01), first every fourth point of it, then all around the best of these.
 * Compact pairs are searched around the best pair of f16: three scales, each with five zero points
 * around the one that keeps the middle of the codes where it is.
 * Errors are weighted by the importance of the columns, and by the magnitude of the weights where
 * that is asked for.
 *
 * Source: AutoRound (Intel, 2023-2025), `opt_rtn`; ggml's search for k-quants, from which the joint
 * refit of scale and minimum is taken.
 */
import { assertArgument } from '@vramkit/core';
import { f16Codec, MAX_ZERO, nextScale, type FactorCodec } from '../factor-codec.js';
import { builtIn } from './built-in.js';
import { groupWord, minimumOf, roundEven, scaleOf } from './group-codes.js';
import { groupQuantizer, type GroupFit, type GroupOfWeights, type Quantizer } from './quantizer.js';
import { centredWord, extremeOf, rtnFit } from './rtn.js';

/** Options of {@link optRtn}. */
export interface OptRtnOptions {
  /** Whether the minimum is free, or a fixed multiple of the scale. Default: 'asymmetric'. */
  readonly convention?: 'asymmetric' | 'symmetric';
  /**
   * What an error counts by, beside the importance of its column: all weights alike, or each by its
   * magnitude, which keeps few-bit codes from shrinking the large weights. The squared error is
   * larger then and the loss of a model may be smaller. Default: 'even'; the asymmetric search
   * alone has both.
   */
  readonly emphasis?: 'even' | 'magnitude';
}

/** Parts of the range that a start cuts off at either end. */
const CUTS = [0, 0.06, 0.16] as const;
/** Most refits of one start; nearly all stop earlier. */
const MOST_REFITS = 8;
/** Steps of a compact scale and of its zero point around the best free pair. */
const SCALE_STEPS = [0, -1, 1] as const;
const ZERO_STEPS = [0, -1, 1, -2, 2] as const;
/** The symmetric grid is searched at every so many points first, then point by point around. */
const COARSE = 4;

const plain = rtnFit('asymmetric');

/**
 * The best pair of a group so far, and sums over the group with the codes nearest to the pair that
 * was offered last: its error, and the best pair for the same codes, follow from them without
 * another pass.
 */
class Search {
  word = 0;
  readonly #group: GroupOfWeights;
  readonly #codec: FactorCodec;
  /** How much each weight of the group counts; absent where all are alike. */
  readonly #counts: Float64Array | undefined;
  #error = Infinity;
  /** Sums of importance, and of its products with codes q and weights x. */
  #w = 0;
  #wq = 0;
  #wqq = 0;
  #wx = 0;
  #wqx = 0;

  constructor(group: GroupOfWeights, codec: FactorCodec, byMagnitude = false) {
    this.#group = group;
    this.#codec = codec;
    const { values, start, count, column, importance } = group;
    if (importance === undefined && !byMagnitude) return;
    this.#counts = new Float64Array(count);
    for (let i = 0; i < count; i++) {
      const magnitude = byMagnitude ? Math.abs(values[start + i] ?? 0) : 1;
      this.#counts[i] = magnitude * (importance?.[column + i] ?? 1);
    }
  }

  /** The error of a pair as stored; kept where it is the least so far. */
  offer(word: number): number {
    const error =
      this.#counts === undefined ? this.#plain(word) : this.#weighted(word, this.#counts);
    if (error < this.#error) {
      this.#error = error;
      this.word = word;
    }
    return error;
  }

  /** All columns alike: the loop that packing spends its time in. */
  #plain(word: number): number {
    const { values, start, count, bits } = this.#group;
    const scale = this.#codec.scaleOf(word);
    const minimum = this.#codec.minimumOf(word);
    const inverse = scale === 0 ? 0 : 1 / scale;
    const maxCode = 2 ** bits - 1;
    let wq = 0;
    let wqq = 0;
    let wx = 0;
    let wqx = 0;
    let error = 0;
    for (let i = start; i < start + count; i++) {
      const value = values[i] ?? 0;
      const position = (value - minimum) * inverse;
      const code = position <= 0 ? 0 : position >= maxCode ? maxCode : roundEven(position);
      const difference = scale * code + minimum - value;
      error += difference * difference;
      wq += code;
      wqq += code * code;
      wx += value;
      wqx += code * value;
    }
    this.#w = count;
    this.#wq = wq;
    this.#wqq = wqq;
    this.#wx = wx;
    this.#wqx = wqx;
    return error;
  }

  #weighted(word: number, counts: Float64Array): number {
    const { values, start, count, bits } = this.#group;
    const scale = this.#codec.scaleOf(word);
    const minimum = this.#codec.minimumOf(word);
    const inverse = scale === 0 ? 0 : 1 / scale;
    const maxCode = 2 ** bits - 1;
    let w = 0;
    let wq = 0;
    let wqq = 0;
    let wx = 0;
    let wqx = 0;
    let error = 0;
    for (let i = 0; i < count; i++) {
      const value = values[start + i] ?? 0;
      const position = (value - minimum) * inverse;
      const code = position <= 0 ? 0 : position >= maxCode ? maxCode : roundEven(position);
      const weight = counts[i] ?? 1;
      const difference = scale * code + minimum - value;
      const weightedCode = weight * code;
      error += weight * difference * difference;
      w += weight;
      wq += weightedCode;
      wqq += weightedCode * code;
      wx += weight * value;
      wqx += weightedCode * value;
    }
    this.#w = w;
    this.#wq = wq;
    this.#wqq = wqq;
    this.#wx = wx;
    this.#wqx = wqx;
    return error;
  }

  /**
   * The pair of f16 that fits the codes of the last offer best; `undefined` where they are all
   * alike.
   */
  refitted(): number | undefined {
    const determinant = this.#w * this.#wqq - this.#wq * this.#wq;
    if (!(determinant > 1e-9 * this.#w * this.#wqq)) return undefined;
    const scale = (this.#w * this.#wqx - this.#wq * this.#wx) / determinant;
    return groupWord(scale, (this.#wx - scale * this.#wq) / this.#w);
  }
}

/** The best pair of f16. */
function searchPair(group: GroupOfWeights, byMagnitude: boolean): number {
  const { values, start, count, bits } = group;
  const maxCode = 2 ** bits - 1;
  let lowest = Infinity;
  let highest = -Infinity;
  for (let i = start; i < start + count; i++) {
    const value = values[i] ?? 0;
    if (value < lowest) lowest = value;
    if (value > highest) highest = value;
  }
  const search = new Search(group, f16Codec, byMagnitude);
  search.offer(plain.fit({ ...group, codec: f16Codec }));
  if (highest === lowest) {
    search.offer(groupWord(0, lowest));
    return search.word;
  }
  const range = highest - lowest;
  for (const below of CUTS) {
    for (const above of CUTS) {
      const scale = (range * (1 - below - above)) / maxCode;
      let word: number | undefined = groupWord(scale, lowest + range * below);
      let last = Infinity;
      for (let refit = 0; word !== undefined && refit <= MOST_REFITS; refit++) {
        const error = search.offer(word);
        if (error >= last) break;
        last = error;
        word = search.refitted();
      }
    }
  }
  return search.word;
}

/** The best pair as the group stores it. */
function searchAsymmetric(group: GroupOfWeights, byMagnitude: boolean): number {
  const pair = searchPair(group, byMagnitude);
  const { codec, bits } = group;
  if (codec.format === 'f16') return pair;
  const search = new Search(group, codec, byMagnitude);
  const first = plain.fit(group);
  search.offer(first);
  const middle = (2 ** bits - 1) / 2;
  // A group of one value has a pair without a scale, which compact ones do not.
  const start = scaleOf(pair) === 0 ? first : codec.wordOf(scaleOf(pair), minimumOf(pair));
  const centre = minimumOf(pair) + middle * scaleOf(pair);
  for (const steps of SCALE_STEPS) {
    const scale = nextScale(start, steps);
    const word = codec.wordOf(scale, centre - middle * scale);
    const zero = word & MAX_ZERO;
    for (const by of ZERO_STEPS) {
      if (zero + by >= 0 && zero + by <= MAX_ZERO) search.offer(word + by);
    }
  }
  return search.word;
}

/** How codes around zero fit a group at an inverse scale. */
interface CentredFit {
  /** By how much the error falls with the best scale for these codes. */
  gain: number;
  /** That scale. */
  scale: number;
}

/** Measures one inverse scale; no second pass over the group is needed for the error. */
function measureCentred(group: GroupOfWeights, inverse: number, into: CentredFit): void {
  const { values, start, count, column, bits, importance } = group;
  const least = -(2 ** (bits - 1));
  let wqx = 0;
  let wqq = 0;
  for (let i = 0; i < count; i++) {
    const value = values[start + i] ?? 0;
    const position = value * inverse;
    const code = position <= least ? least : position >= -least - 1 ? -least - 1 : position;
    const rounded = roundEven(code);
    const weight = importance === undefined ? 1 : (importance[column + i] ?? 1);
    wqx += weight * rounded * value;
    wqq += weight * rounded * rounded;
  }
  into.gain = wqq > 0 ? (wqx * wqx) / wqq : 0;
  into.scale = wqq > 0 ? wqx / wqq : 0;
}

function searchSymmetric(group: GroupOfWeights): number {
  const { bits, codec } = group;
  const middle = 2 ** (bits - 1);
  const extreme = extremeOf(group);
  const search = new Search(group, codec);
  search.offer(centredWord(codec, -extreme / middle, middle));
  if (extreme === 0) return search.word;
  const reach = bits === 2 ? 88 : 100;
  const step = bits === 2 ? 0.01 : (0.75 * middle) / 100;
  const fit: CentredFit = { gain: 0, scale: 0 };
  let best = 0;
  let bestGain = -Infinity;
  let bestScale = 0;
  for (let pass = 0; pass < 2; pass++) {
    const centre = best;
    const from = pass === 0 ? -reach : centre - COARSE + 1;
    const to = pass === 0 ? reach : centre + COARSE - 1;
    for (let i = from; i <= to; i += pass === 0 ? COARSE : 1) {
      measureCentred(group, -(middle - step * i) / extreme, fit);
      if (fit.gain <= bestGain) continue;
      best = i;
      bestGain = fit.gain;
      bestScale = fit.scale;
    }
  }
  search.offer(centredWord(codec, bestScale, middle));
  return search.word;
}

/**
 * Round to nearest with a search; about 60 times the work of `rtn`.
 * @throws VramError `invalid-argument` for a symmetric search by magnitude.
 */
export function optRtn(options: OptRtnOptions = {}): Quantizer {
  const { convention = 'asymmetric', emphasis = 'even' } = options;
  assertArgument(
    convention === 'asymmetric' || emphasis === 'even',
    'the symmetric search does not weigh by magnitude',
  );
  return builtIn({ make: 'optRtn', options }, groupQuantizer(optRtnFit(convention, emphasis)));
}

/** The fit of {@link optRtn}. */
export function optRtnFit(
  convention: 'asymmetric' | 'symmetric',
  emphasis: 'even' | 'magnitude' = 'even',
): GroupFit {
  const byMagnitude = emphasis === 'magnitude';
  return {
    name: `optRtn-${convention}${byMagnitude ? '-magnitude' : ''}`,
    maxCode: (bits) => 2 ** bits - 1,
    fit:
      convention === 'asymmetric'
        ? (group) => searchAsymmetric(group, byMagnitude)
        : searchSymmetric,
  };
}

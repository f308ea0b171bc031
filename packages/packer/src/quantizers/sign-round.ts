/**
 * SignRound: rounding offsets and range factors are trained by the sign of their gradients.
 *
 * Per weight an offset v, per group factors a and b in [0, 1] on its largest and smallest weight:
 *
 *     s = (a max - b min) / (2^bits - 1) and m = b min, both as stored
 *     q = clamp(round((w - m) / s + v))
 *     loss = d^T H d with d = s q + m - w, H the moments of the activations
 *
 * Rounding passes gradients through. Each step moves every parameter by the learning rate against
 * the sign of its gradient; the rate falls linearly from 1 / iterations (2 / iterations for at most
 * 3 bits and at least 1,000 iterations) to 0, which bounds v to about half a code. The parameters
 * with the least loss are kept. Codes are deliberately not the nearest to the weights.
 *
 * Source: Cheng et al., SignRound (2023), and AutoRound. Differs: the loss is that of one linear
 * layer, from its moments, not of a transformer block; so rows are independent and no model is run.
 * Cost: rows * columns^2 * (2 + iterations * (2 / groupSize + part of the codes that a step
 * changes)); see `row-gradient.ts`. A step moves most codes of 8 bits and few of 2 to 4.
 */
import { factorCodec, type FactorCodec } from '../factor-codec.js';
import { builtIn } from './built-in.js';
import { roundEven } from './group-codes.js';
import { RowGradient } from './row-gradient.js';
import { requireMoments, type QuantizeInput, type Quantizer } from './quantizer.js';

/** Options of {@link signRound}. */
export interface SignRoundOptions {
  /** Steps. Default: 200. */
  readonly iterations?: number;
  /** First learning rate. Default: see the head of `sign-round.ts`. */
  readonly learningRate?: number;
}

/** Parameters, codes and gradients of one row; reused for all rows. */
class RowTraining {
  readonly words: Uint32Array;
  readonly codes: Uint8Array;
  readonly #columns: number;
  readonly #groupSize: number;
  readonly #maxCode: number;
  readonly #codec: FactorCodec;
  readonly #offset: Float64Array;
  readonly #factors: Float64Array;
  readonly #range: Float64Array;
  readonly #position: Float64Array;
  readonly #error: Float64Array;
  readonly #gradient: RowGradient;
  readonly #scales: Float64Array;
  readonly #minimums: Float64Array;

  constructor(input: QuantizeInput, moments: Float64Array) {
    const { columns, groupSize, bits, factors = 'f16' } = input;
    this.#codec = factorCodec(factors, bits);
    this.#columns = columns;
    this.#groupSize = groupSize;
    this.#maxCode = 2 ** bits - 1;
    this.words = new Uint32Array(columns / groupSize);
    this.codes = new Uint8Array(columns);
    this.#offset = new Float64Array(columns);
    this.#factors = new Float64Array((2 * columns) / groupSize);
    this.#range = new Float64Array((2 * columns) / groupSize);
    this.#position = new Float64Array(columns);
    this.#error = new Float64Array(columns);
    this.#gradient = new RowGradient(moments, columns, groupSize);
    this.#scales = new Float64Array(columns / groupSize);
    this.#minimums = new Float64Array(columns / groupSize);
  }

  /** Starts on a row: no offsets, full ranges. */
  start(weights: Float32Array): void {
    this.#offset.fill(0);
    this.#factors.fill(1);
    this.#gradient.start(weights);
    for (let group = 0; group < this.words.length; group++) {
      let lowest = 0;
      let highest = 0;
      for (let i = group * this.#groupSize; i < (group + 1) * this.#groupSize; i++) {
        lowest = Math.min(lowest, weights[i] ?? 0);
        highest = Math.max(highest, weights[i] ?? 0);
      }
      this.#range[2 * group] = highest;
      this.#range[2 * group + 1] = lowest;
    }
  }

  /** Rounds the row with the current parameters; gives the loss. */
  forward(weights: Float32Array): number {
    for (let group = 0; group < this.words.length; group++) {
      const highest = (this.#factors[2 * group] ?? 0) * (this.#range[2 * group] ?? 0);
      const lowest = (this.#factors[2 * group + 1] ?? 0) * (this.#range[2 * group + 1] ?? 0);
      const word = this.#codec.wordOf((highest - lowest) / this.#maxCode, lowest);
      this.words[group] = word;
      const scale = this.#codec.scaleOf(word);
      const minimum = this.#codec.minimumOf(word);
      this.#scales[group] = scale;
      this.#minimums[group] = minimum;
      for (let i = group * this.#groupSize; i < (group + 1) * this.#groupSize; i++) {
        const weight = weights[i] ?? 0;
        const position = scale === 0 ? 0 : (weight - minimum) / scale + (this.#offset[i] ?? 0);
        this.#position[i] = position;
        const code = roundEven(Math.min(Math.max(position, 0), this.#maxCode));
        this.codes[i] = code;
        this.#error[i] = scale * code + minimum - weight;
      }
    }
    this.#gradient.update(this.codes, this.#scales, this.#minimums);
    const gradient = this.#gradient.values;
    let loss = 0;
    for (let i = 0; i < this.#columns; i++) loss += (gradient[i] ?? 0) * (this.#error[i] ?? 0);
    return loss;
  }

  /** Moves every parameter by `rate` against the sign of its gradient. */
  step(rate: number): void {
    for (let group = 0; group < this.words.length; group++) {
      const scale = this.#scales[group] ?? 0;
      let byScale = 0;
      let byMinimum = 0;
      for (let i = group * this.#groupSize; i < (group + 1) * this.#groupSize; i++) {
        const gradient = this.#gradient.values[i] ?? 0;
        const position = this.#position[i] ?? 0;
        const offset = this.#offset[i] ?? 0;
        const code = this.codes[i] ?? 0;
        const isFree = position > 0 && position < this.#maxCode;
        if (isFree) this.#offset[i] = offset - rate * Math.sign(gradient * scale);
        // d(s q + m)/ds = q - (w - m) / s where the rounding passes gradients, else q.
        byScale += gradient * (isFree ? code - (position - offset) : code);
        byMinimum += isFree ? 0 : gradient;
      }
      const highest = this.#range[2 * group] ?? 0;
      const lowest = this.#range[2 * group + 1] ?? 0;
      const perCode = byScale / this.#maxCode;
      this.#moveFactor(2 * group, rate * Math.sign(perCode * highest));
      this.#moveFactor(2 * group + 1, rate * Math.sign((byMinimum - perCode) * lowest));
    }
  }

  #moveFactor(at: number, by: number): void {
    this.#factors[at] = Math.min(1, Math.max(0, (this.#factors[at] ?? 0) - by));
  }
}

function quantize(input: QuantizeInput, options: SignRoundOptions) {
  const { rows, columns, bits, groupSize } = input;
  const { iterations = 200 } = options;
  const first = options.learningRate ?? (bits <= 3 && iterations >= 1000 ? 2 : 1) / iterations;
  const row = new RowTraining(input, requireMoments('signRound', input));
  const codes = new Uint8Array(rows * columns);
  const factors = new Uint32Array((rows * columns) / groupSize);
  for (let r = 0; r < rows; r++) {
    const weights = input.values.subarray(r * columns, (r + 1) * columns);
    row.start(weights);
    let least = Infinity;
    for (let step = 0; step <= iterations; step++) {
      const loss = row.forward(weights);
      if (loss < least) {
        least = loss;
        codes.set(row.codes, r * columns);
        factors.set(row.words, (r * columns) / groupSize);
      }
      if (step < iterations) row.step(first * (1 - step / iterations));
    }
  }
  return { codes, factors };
}

/** SignRound; see the head of this file. Needs moments. */
export function signRound(options: SignRoundOptions = {}): Quantizer {
  return builtIn(
    { make: 'signRound', options },
    { name: 'signRound', needs: 'moments', quantize: (input) => quantize(input, options) },
  );
}

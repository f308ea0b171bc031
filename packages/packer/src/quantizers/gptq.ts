/**
 * GPTQ: columns are rounded one after the other, and what a column got wrong is made up for by the
 * columns that are still free, as far as the activations see it.
 *
 * With U the upper Cholesky factor of the inverse of the damped moments H, column i with error
 * e = (w_i - q_i) / U_ii changes every later column j by -e U_ij. A group's scale and minimum are
 * fitted when its first column is reached, to the weights as changed until then. A column that no
 * sample used (H_ii = 0) becomes 0 first. Columns go in their stored order: reordering by power
 * would tear groups apart.
 *
 * Cost: columns^3 / 3 once for a matrix, rows * columns^2 / 2 for its rows. Memory: two matrices of
 * columns^2 in f64.
 *
 * Source: Frantar et al., GPTQ (2022). Differs: f64 throughout and no blocks of 128 columns, which
 * only order the same sums for a GPU.
 */
import { factorCodec } from '../factor-codec.js';
import { builtIn } from './built-in.js';
import { nearestCode } from './group-codes.js';
import { alone, inverseFactor } from './inverse-factor.js';
import { optRtnFit } from './opt-rtn.js';
import { requireMoments, type GroupFit, type QuantizeInput, type Quantizer } from './quantizer.js';

/** Options of {@link gptq}. */
export interface GptqOptions {
  /** Part of the mean diagonal that is added to it. Default: 0.01. */
  readonly damping?: number;
  /** How scale and minimum of a group are found. Default: the search of `optRtn`. */
  readonly fit?: GroupFit;
}

function quantize(input: QuantizeInput, upper: Float64Array, fit: GroupFit) {
  const { rows, columns, bits, groupSize, importance, factors: format = 'f16' } = input;
  const codec = factorCodec(format, bits);
  const moments = requireMoments('gptq', input);
  const codes = new Uint8Array(rows * columns);
  const factors = new Uint32Array((rows * columns) / groupSize);
  const maxCode = fit.maxCode(bits);
  // Weights as changed so far: f64 for the sums, f32 for the fit of a group.
  const row = new Float64Array(columns);
  const values = new Float32Array(columns);
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < columns; i++) {
      const unused = (moments[i * columns + i] ?? 0) === 0;
      row[i] = unused ? 0 : (input.values[r * columns + i] ?? 0);
    }
    let word = 0;
    for (let i = 0; i < columns; i++) {
      if (i % groupSize === 0) {
        values.set(row.subarray(i, i + groupSize), i);
        word = fit.fit({ values, start: i, count: groupSize, column: i, bits, importance, codec });
        factors[(r * columns + i) / groupSize] = word;
      }
      const scale = codec.scaleOf(word);
      const minimum = codec.minimumOf(word);
      const value = row[i] ?? 0;
      const code = nearestCode(value, scale, minimum, maxCode);
      codes[r * columns + i] = code;
      const at = i * columns;
      const error = (value - (scale * code + minimum)) / (upper[at + i] ?? 1);
      for (let j = i + 1; j < columns; j++) row[j] = (row[j] ?? 0) - error * (upper[at + j] ?? 0);
    }
  }
  return { codes, factors };
}

/** What `damping` is by default. */
export const DAMPING = 0.01;

/** The quantizer that takes U of each input from `upperOf`. */
export function gptqWith(
  upperOf: (input: QuantizeInput) => Float64Array,
  fit: GroupFit = optRtnFit('asymmetric'),
): Quantizer {
  return {
    name: 'gptq',
    needs: 'moments',
    quantize: (input) => quantize(input, upperOf(input), fit),
  };
}

/** GPTQ; see the head of this file. Needs moments. */
export function gptq(options: GptqOptions = {}): Quantizer {
  const { damping = DAMPING, fit } = options;
  const upperOf = (input: QuantizeInput): Float64Array => {
    const team = alone(input.columns);
    inverseFactor(requireMoments('gptq', input), input.columns, damping, team);
    return team.upper;
  };
  const quantizer = gptqWith(upperOf, fit);
  // A fit is a function, which cannot be sent to a thread.
  return fit === undefined ? builtIn({ make: 'gptq', options }, quantizer) : quantizer;
}

/**
 * GPTQ: columns are rounded one after the other, and what a column got wrong is made up for by the
 * columns that are still free, as far as the activations see it.
 *
 * With U the upper Cholesky factor of the inverse of the damped moments H, column i with error
 * e = (w_i - q_i) / U_ii changes every later column j by -e U_ij. A group's scale and minimum are
 * fitted when its first column is reached, to the weights as changed until then. A column that no
 * sample used (H_ii = 0) becomes 0 first. Columns go in their stored order, or those of most power
 * first: groups stay those of the stored order and are all fitted before the first column then.
 *
 * Cost: columns^3 / 3 once for a matrix, rows * columns^2 / 2 for its rows. Memory: two matrices of
 * columns^2 in f64.
 *
 * Source: Frantar et al., GPTQ (2022). Differs: f64 throughout and no blocks of 128 columns, which
 * only order the same sums for a GPU.
 */
import type { AffineCodes } from '../code-words.js';
import { factorCodec } from '../factor-codec.js';
import { builtIn } from './built-in.js';
import { nearestCode } from './group-codes.js';
import { alone, columnsInOrder, inverseFactor, type ColumnOrder } from './inverse-factor.js';
import { optRtnFit } from './opt-rtn.js';
import { requireMoments, type GroupFit, type QuantizeInput, type Quantizer } from './quantizer.js';

/** Options of {@link gptq}. */
export interface GptqOptions {
  /** Part of the mean diagonal that is added to it. Default: 0.01. */
  readonly damping?: number;
  /** How scale and minimum of a group are found. Default: the search of `optRtn`. */
  readonly fit?: GroupFit;
  /** Columns are rounded as they are stored, or those of most power first. Default: 'stored'. */
  readonly order?: ColumnOrder;
}

/** Rows that go through U together, which is read from memory once for all of them. */
const TOGETHER = 4;

function quantize(
  input: QuantizeInput,
  upper: Float64Array,
  { fit, order: how }: Required<Pick<GptqOptions, 'fit' | 'order'>>,
): AffineCodes {
  const { rows, columns, bits, groupSize, importance, factors: format = 'f16' } = input;
  const codec = factorCodec(format, bits);
  const moments = requireMoments('gptq', input);
  const codes = new Uint8Array(rows * columns);
  const factors = new Uint32Array((rows * columns) / groupSize);
  const maxCode = fit.maxCode(bits);
  const order = columnsInOrder(moments, columns, how);
  // Weights as changed so far: f64 in order for the sums, f32 as stored for the fit of a group.
  const changed = Array.from({ length: TOGETHER }, () => new Float64Array(columns));
  const values = new Float32Array(columns);
  const errors = new Float64Array(TOGETHER);
  const fitGroup = (row: number, start: number): void => {
    const group = { values, start, count: groupSize, column: start, bits, importance, codec };
    factors[(row * columns + start) / groupSize] = fit.fit(group);
  };
  for (let first = 0; first < rows; first += TOGETHER) {
    const some = changed.slice(0, rows - first);
    some.forEach((row, r) => {
      order.forEach((column, i) => {
        const unused = (moments[column * columns + column] ?? 0) === 0;
        row[i] = unused ? 0 : (input.values[(first + r) * columns + column] ?? 0);
        values[column] = row[i] ?? 0;
      });
      if (how === 'stored') return;
      for (let start = 0; start < columns; start += groupSize) fitGroup(first + r, start);
    });
    for (let i = 0; i < columns; i++) {
      const column = order[i] ?? 0;
      some.forEach((row, r) => {
        const at = (first + r) * columns + column;
        if (how === 'stored' && i % groupSize === 0) {
          values.set(row.subarray(i, i + groupSize), i);
          fitGroup(first + r, i);
        }
        const word = factors[Math.floor(at / groupSize)] ?? 0;
        const scale = codec.scaleOf(word);
        const minimum = codec.minimumOf(word);
        const value = row[i] ?? 0;
        const code = nearestCode(value, scale, minimum, maxCode);
        codes[at] = code;
        errors[r] = (value - (scale * code + minimum)) / (upper[i * columns + i] ?? 1);
      });
      spread(some, errors, upper.subarray(i * columns, (i + 1) * columns), i + 1);
    }
  }
  return { codes, factors };
}

/** Makes up for the errors of a column in the columns from `from` on. */
function spread(
  rows: readonly Float64Array[],
  errors: Float64Array,
  factor: Float64Array,
  from: number,
): void {
  const [a, b, c, d] = rows;
  const [ea = 0, eb = 0, ec = 0, ed = 0] = errors;
  if (a === undefined) return;
  if (b === undefined || c === undefined || d === undefined) {
    rows.forEach((row, r) => {
      const error = errors[r] ?? 0;
      for (let j = from; j < row.length; j++) row[j] = (row[j] ?? 0) - error * (factor[j] ?? 0);
    });
    return;
  }
  for (let j = from; j < factor.length; j++) {
    const by = factor[j] ?? 0;
    a[j] = (a[j] ?? 0) - ea * by;
    b[j] = (b[j] ?? 0) - eb * by;
    c[j] = (c[j] ?? 0) - ec * by;
    d[j] = (d[j] ?? 0) - ed * by;
  }
}

/** What `damping` is by default. */
export const DAMPING = 0.01;

/** The quantizer that takes U of each input from `upperOf`. */
export function gptqWith(
  upperOf: (input: QuantizeInput) => Float64Array,
  { fit = optRtnFit('asymmetric'), order = 'stored' }: GptqOptions = {},
): Quantizer {
  return {
    name: order === 'stored' ? 'gptq' : 'gptq-power',
    needs: 'moments',
    quantize: (input) => quantize(input, upperOf(input), { fit, order }),
  };
}

/** GPTQ; see the head of this file. Needs moments. */
export function gptq(options: GptqOptions = {}): Quantizer {
  const { damping = DAMPING, order = 'stored' } = options;
  const upperOf = (input: QuantizeInput): Float64Array => {
    const moments = requireMoments('gptq', input);
    const team = alone(input.columns);
    inverseFactor(moments, columnsInOrder(moments, input.columns, order), damping, team);
    return team.upper;
  };
  const quantizer = gptqWith(upperOf, options);
  // A fit is a function, which cannot be sent to a thread.
  return options.fit === undefined ? builtIn({ make: 'gptq', options }, quantizer) : quantizer;
}

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
 * Cost: columns^3 once for a matrix, rows * columns^2 for its rows. Memory: two matrices of
 * columns^2 in f64.
 *
 * Source: Frantar et al., GPTQ (2022). Differs: f64 throughout and no blocks of 128 columns, which
 * only order the same sums for a GPU.
 */
import { fail } from '@vramkit/core';
import { factorCodec } from '../factor-codec.js';
import { nearestCode } from './group-codes.js';
import { optRtnFit } from './opt-rtn.js';
import { requireMoments, type GroupFit, type QuantizeInput, type Quantizer } from './quantizer.js';

/** Options of {@link gptq}. */
export interface GptqOptions {
  /** Part of the mean diagonal that is added to it. Default: 0.01. */
  readonly damping?: number;
  /** How scale and minimum of a group are found. Default: the search of `optRtn`. */
  readonly fit?: GroupFit;
}

/** The upper factor U with U^T U = inverse(H), and the columns that no sample used. */
function inverseFactor(moments: Float64Array, n: number, damping: number): Float64Array {
  const h = moments.slice();
  let mean = 0;
  for (let i = 0; i < n; i++) mean += (h[i * n + i] ?? 0) / n;
  for (let i = 0; i < n; i++) {
    const diagonal = h[i * n + i] ?? 0;
    h[i * n + i] = (diagonal === 0 ? 1 : diagonal) + damping * mean;
  }
  const lower = cholesky(h, n);
  const inverse = new Float64Array(n * n);
  // Columns of the inverse of L, by forward substitution; inverse(H) = inverse(L)^T inverse(L).
  for (let column = 0; column < n; column++) {
    for (let i = column; i < n; i++) {
      let sum = i === column ? 1 : 0;
      for (let k = column; k < i; k++) {
        sum -= (lower[i * n + k] ?? 0) * (inverse[k * n + column] ?? 0);
      }
      inverse[i * n + column] = sum / (lower[i * n + i] ?? 1);
    }
  }
  const product = new Float64Array(n * n);
  for (let k = 0; k < n; k++) {
    for (let i = 0; i <= k; i++) {
      const left = inverse[k * n + i] ?? 0;
      for (let j = 0; j <= k; j++) {
        product[i * n + j] = (product[i * n + j] ?? 0) + left * (inverse[k * n + j] ?? 0);
      }
    }
  }
  const factor = cholesky(product, n);
  const upper = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) upper[j * n + i] = factor[i * n + j] ?? 0;
  }
  return upper;
}

function cholesky(matrix: Float64Array, n: number): Float64Array {
  const lower = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = matrix[i * n + j] ?? 0;
      for (let k = 0; k < j; k++) sum -= (lower[i * n + k] ?? 0) * (lower[j * n + k] ?? 0);
      if (i !== j) lower[i * n + j] = sum / (lower[j * n + j] ?? 1);
      else if (sum > 0) lower[i * n + i] = Math.sqrt(sum);
      else fail('invalid-argument', `moments are not positive definite at column ${i}`, { i });
    }
  }
  return lower;
}

function quantize(input: QuantizeInput, damping: number, fit: GroupFit) {
  const { rows, columns, bits, groupSize, importance, factors: format = 'f16' } = input;
  const codec = factorCodec(format, bits);
  const moments = requireMoments('gptq', input);
  const upper = inverseFactor(moments, columns, damping);
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

/** GPTQ; see the head of this file. Needs moments. */
export function gptq(options: GptqOptions = {}): Quantizer {
  const { damping = 0.01, fit = optRtnFit('asymmetric') } = options;
  return { name: 'gptq', needs: 'moments', quantize: (input) => quantize(input, damping, fit) };
}

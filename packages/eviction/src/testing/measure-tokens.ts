/**
 * What a cache measures, from plain K, V and Q: the definition of each {@link KvNeed}.
 *
 * Written to be read, in float64, rounded to f32 at the end. Caches that measure on a device are
 * compared with it.
 */
import type { KvTokens } from '../needs.js';

/** Plain keys, values and queries of one sequence. */
export interface PlainKv {
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Position of each token, ascending. */
  readonly positions: Uint32Array;
  /** Shape `[tokens, layers, kvHeads, headDim]`, rotated. */
  readonly keys: Float32Array;
  /** Shape `[tokens, layers, kvHeads, headDim]`. */
  readonly values: Float32Array;
  /** Query heads of a layer, a multiple of the KV heads. */
  readonly queryHeads: number;
  /** Position of each query; it sees the tokens up to that position. */
  readonly queryPositions: Uint32Array;
  /** Shape `[queries, layers, queryHeads, headDim]`, rotated. */
  readonly queries: Float32Array;
}

/**
 * The tokens with every need but `queries`.
 * @param attentionQueries Last queries whose attention is summed; `Infinity` for all.
 */
export function measureTokens(plain: PlainKv, attentionQueries: number): KvTokens {
  const { layers, kvHeads, positions, keys, values } = plain;
  return {
    tokenCount: positions.length,
    layers,
    kvHeads,
    positions,
    keys,
    values,
    keyNorm: rowNorms(plain, keys),
    valueNorm: rowNorms(plain, values),
    keySimilarity: similarities(plain),
    attention: attention(plain, attentionQueries),
  };
}

function rowNorms({ headDim }: PlainKv, array: Float32Array): Float32Array {
  return Float32Array.from({ length: array.length / headDim }, (_, row) =>
    norm(array, row * headDim, headDim),
  );
}

function similarities({ layers, kvHeads, headDim, keys, positions }: PlainKv): Float32Array {
  const width = layers * kvHeads;
  const out = new Float32Array(positions.length * width);
  for (let row = 0; row < width; row++) {
    const sum = new Float64Array(headDim);
    const start = (token: number): number => (token * width + row) * headDim;
    for (let token = 0; token < positions.length; token++) {
      const length = norm(keys, start(token), headDim);
      if (length === 0) continue;
      for (let i = 0; i < headDim; i++) {
        sum[i] = (sum[i] ?? NaN) + (keys[start(token) + i] ?? NaN) / length;
      }
    }
    const sumLength = norm(sum, 0, headDim);
    for (let token = 0; token < positions.length; token++) {
      const length = norm(keys, start(token), headDim);
      if (length === 0 || sumLength === 0) continue;
      let product = 0;
      for (let i = 0; i < headDim; i++) {
        product += ((sum[i] ?? NaN) / sumLength) * ((keys[start(token) + i] ?? NaN) / length);
      }
      out[token * width + row] = product;
    }
  }
  return out;
}

function attention(plain: PlainKv, attentionQueries: number): Float32Array {
  const { layers, kvHeads, headDim, positions, keys, queries } = plain;
  const { queryHeads, queryPositions } = plain;
  const group = queryHeads / kvHeads;
  const sums = new Float64Array(positions.length * layers * kvHeads);
  const firstQuery = Math.max(0, queryPositions.length - attentionQueries);
  for (let query = firstQuery; query < queryPositions.length; query++) {
    const seen = positions.filter((position) => position <= (queryPositions[query] ?? NaN)).length;
    for (let head = 0; head < layers * queryHeads; head++) {
      const row = Math.floor(head / group);
      const at = (query * layers * queryHeads + head) * headDim;
      const logits = Array.from({ length: seen }, (_, token) => {
        const from = (token * layers * kvHeads + row) * headDim;
        let product = 0;
        for (let i = 0; i < headDim; i++) {
          product += (queries[at + i] ?? NaN) * (keys[from + i] ?? NaN);
        }
        return product / Math.sqrt(headDim);
      });
      const highest = Math.max(...logits);
      const powers = logits.map((logit) => Math.exp(logit - highest));
      const total = powers.reduce((sum, power) => sum + power, 0);
      powers.forEach((power, token) => {
        const index = token * layers * kvHeads + row;
        sums[index] = (sums[index] ?? NaN) + power / total / group;
      });
    }
  }
  return Float32Array.from(sums);
}

function norm(values: ArrayLike<number>, start: number, count: number): number {
  let sum = 0;
  for (let i = start; i < start + count; i++) sum += (values[i] ?? NaN) ** 2;
  return Math.sqrt(sum);
}

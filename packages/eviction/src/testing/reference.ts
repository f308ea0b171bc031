/**
 * Parts of the float64 references that the tests of several policies share, written from formulas
 * on lists of numbers, apart from the code under test.
 */
import type { PlainKv } from './measure-tokens.js';

/** 0, 1, ... `count` - 1. */
export function range(count: number): number[] {
  return Array.from({ length: Math.max(0, count) }, (_, index) => index);
}

/** The sum. */
export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** The mean. */
export function mean(values: readonly number[]): number {
  return sum(values) / values.length;
}

/** The scalar product. */
export function dot(a: readonly number[], b: readonly number[]): number {
  return sum(a.map((value, i) => value * (b[i] ?? NaN)));
}

/** The Euclidean norm. */
export function length(vector: readonly number[]): number {
  return Math.sqrt(dot(vector, vector));
}

/** Weights that sum to 1. */
export function softmax(logits: readonly number[]): number[] {
  const powers = logits.map((logit) => Math.exp(logit - Math.max(...logits)));
  return powers.map((power) => power / sum(powers));
}

/** The vectors of one row (layer and head) of `[tokens, rows, headDim]`, token by token. */
export function vectors(
  array: Float32Array,
  rows: number,
  row: number,
  headDim: number,
): number[][] {
  return range(array.length / (rows * headDim)).map((token) => [
    ...array.subarray((token * rows + row) * headDim, (token * rows + row + 1) * headDim),
  ]);
}

/** What a reference gets of one KV head of one layer. */
export interface ReferenceHead {
  readonly layer: number;
  readonly keys: readonly number[][];
  readonly values: readonly number[][];
  /** Query heads that share the KV head, each query by query. */
  readonly queries: readonly number[][][];
}

/** The score of each token: the mean over layers of the mean over heads of `scoreHead`. */
export function referenceScores(
  plain: PlainKv,
  scoreHead: (head: ReferenceHead) => readonly number[],
): number[] {
  const { layers, kvHeads, queryHeads, headDim } = plain;
  const byRow = range(layers * kvHeads).map((row) => {
    const group = queryHeads / kvHeads;
    return scoreHead({
      layer: Math.floor(row / kvHeads),
      keys: vectors(plain.keys, layers * kvHeads, row, headDim),
      values: vectors(plain.values, layers * kvHeads, row, headDim),
      queries: range(group).map((member) =>
        vectors(plain.queries, layers * queryHeads, row * group + member, headDim),
      ),
    });
  });
  return range(plain.positions.length).map((token) =>
    mean(byRow.map((scores) => scores[token] ?? NaN)),
  );
}

/** Attention that each token receives from the last `window` queries, averaged over query heads. */
export function attentionReceived(head: ReferenceHead, window: number): number[] {
  const { keys, queries } = head;
  const matrices = queries.map((queriesOfHead) =>
    queriesOfHead.map((query, position) =>
      softmax(keys.slice(0, position + 1).map((key) => dot(query, key) / Math.sqrt(key.length))),
    ),
  );
  return keys.map((_, token) =>
    mean(
      matrices.map((matrix) =>
        sum(matrix.slice(-Math.min(window, matrix.length)).map((weights) => weights[token] ?? 0)),
      ),
    ),
  );
}

/** Largest difference, relative to the magnitude of the expected value where that is above 1. */
export function worstError(actual: ArrayLike<number>, expected: readonly number[]): number {
  if (actual.length !== expected.length) return Infinity;
  return Math.max(
    0,
    ...expected.map(
      (value, i) => Math.abs((actual[i] ?? NaN) - value) / Math.max(1, Math.abs(value)),
    ),
  );
}

/**
 * Reading {@link KvTokens}: every array is checked for presence, length and finite values before a
 * score is computed from it. A NaN would otherwise compare false with everything and leave the
 * order of tokens, and so the choice of victims, to chance.
 */
import { assertArgument, checkInteger, fail } from '@vramkit/core';
import type { KvNeed, KvQueries, KvTokens } from './needs.js';

/** Needs that are one array with a row per token, layer and KV head. */
export type KvArrayNeed = Exclude<KvNeed, 'queries'>;

const WIDE: readonly KvNeed[] = ['keys', 'values'];
const SIGNED: readonly KvNeed[] = ['keys', 'values', 'keySimilarity'];

/**
 * Checks counts and positions.
 * @throws VramError `invalid-argument` naming what is wrong.
 */
export function checkTokens(tokens: KvTokens): void {
  checkInteger('tokenCount', tokens.tokenCount);
  checkInteger('layers', tokens.layers, 1);
  checkInteger('kvHeads', tokens.kvHeads, 1);
  checkLength('positions', tokens.positions, tokens.tokenCount);
  let previous = -1;
  for (const position of tokens.positions) {
    if (position <= previous) {
      fail('invalid-argument', `position ${position} follows ${previous}; they must ascend`, {
        position,
        previous,
      });
    }
    previous = position;
  }
}

/**
 * The array behind a need. Norms and attention must not be negative; all values must be finite.
 * @throws VramError `invalid-argument` naming the need, and the token, layer and head of a bad
 *   value.
 */
export function statistic(tokens: KvTokens, need: KvArrayNeed): Float32Array {
  const array = tokens[need];
  if (array === undefined) fail('invalid-argument', `'${need}' is needed and not given`, { need });
  const rows = tokens.tokenCount * tokens.layers * tokens.kvHeads;
  if (WIDE.includes(need)) {
    const fits = rows === 0 ? array.length === 0 : array.length > 0 && array.length % rows === 0;
    assertArgument(fits, `${need} has ${array.length} values, no multiple of ${rows} rows`, {
      length: array.length,
      rows,
    });
  } else {
    checkLength(need, array, rows);
  }
  const lowest = SIGNED.includes(need) ? -Infinity : 0;
  for (let index = 0; index < array.length; index++) {
    const value = array[index] ?? NaN;
    if (!Number.isFinite(value) || value < lowest) rejectValue(tokens, need, index, value);
  }
  return array;
}

/**
 * The queries to come, checked against the shape of the tokens.
 * @param headDim Values of a key.
 * @throws VramError `invalid-argument` where they are absent, of wrong length or not finite.
 */
export function expectedQueries(tokens: KvTokens, headDim: number): KvQueries {
  const { queries, layers, kvHeads } = tokens;
  if (queries === undefined) fail('invalid-argument', `'queries' is needed and not given`);
  checkInteger('heads', queries.heads, 1);
  assertArgument(
    queries.heads % kvHeads === 0,
    `${queries.heads} query heads over ${kvHeads} KV heads`,
    { heads: queries.heads, kvHeads },
  );
  const rows = layers * queries.heads;
  checkLength('mean', queries.mean, rows * headDim);
  checkLength('covariance', queries.covariance, rows * headDim * headDim);
  for (const [name, array] of Object.entries({
    mean: queries.mean,
    covariance: queries.covariance,
  })) {
    const index = array.findIndex((value) => !Number.isFinite(value));
    assertArgument(index === -1, `${name} of the queries is ${array[index]} at ${index}`, {
      name,
      index,
    });
  }
  return queries;
}

/**
 * The tokens at `indices`, in that order, with all arrays given: what is left after an eviction, or
 * the tokens of one block. Similarities and attention stay as they were measured, over all tokens.
 * @throws VramError `invalid-argument` where an index names no token.
 */
export function gatherTokens(tokens: KvTokens, indices: ArrayLike<number>): KvTokens {
  const from = Array.from(indices, (index) =>
    checkInteger('token index', index, 0, tokens.tokenCount - 1),
  );
  const rows = (array: Float32Array): Float32Array => {
    const width = array.length / tokens.tokenCount;
    const out = new Float32Array(from.length * width);
    from.forEach((index, row) => {
      out.set(array.subarray(index * width, (index + 1) * width), row * width);
    });
    return out;
  };
  return {
    tokenCount: from.length,
    layers: tokens.layers,
    kvHeads: tokens.kvHeads,
    positions: Uint32Array.from(from, (index) => tokens.positions[index] ?? NaN),
    ...(tokens.keyNorm && { keyNorm: rows(tokens.keyNorm) }),
    ...(tokens.valueNorm && { valueNorm: rows(tokens.valueNorm) }),
    ...(tokens.keySimilarity && { keySimilarity: rows(tokens.keySimilarity) }),
    ...(tokens.keys && { keys: rows(tokens.keys) }),
    ...(tokens.values && { values: rows(tokens.values) }),
    ...(tokens.attention && { attention: rows(tokens.attention) }),
    ...(tokens.queries && { queries: tokens.queries }),
  };
}

function checkLength(name: string, array: ArrayLike<number>, length: number): void {
  if (array.length !== length) {
    fail('invalid-argument', `${name} has ${array.length} values, ${length} expected`, {
      name,
      length: array.length,
      expected: length,
    });
  }
}

function rejectValue(tokens: KvTokens, need: KvArrayNeed, index: number, value: number): never {
  const values = tokens[need]?.length ?? 0;
  const row = Math.floor(index / (values / (tokens.tokenCount * tokens.layers * tokens.kvHeads)));
  const head = row % tokens.kvHeads;
  const layer = Math.floor(row / tokens.kvHeads) % tokens.layers;
  const token = Math.floor(row / (tokens.kvHeads * tokens.layers));
  fail('invalid-argument', `${need} of token ${token}, layer ${layer}, head ${head} is ${value}`, {
    need,
    token,
    layer,
    head,
    value: String(value),
  });
}

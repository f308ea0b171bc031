/**
 * Reading {@link KvTokens}: every array is checked for presence, length and finite values before a
 * score is computed from it. A NaN would otherwise compare false with everything and leave the
 * order of tokens, and so the choice of victims, to chance.
 */
import { assertArgument, checkInteger, fail } from '@vramkit/core';
import type { KvNeed, KvTokens } from './policy.js';

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
export function statistic(tokens: KvTokens, need: KvNeed): Float32Array {
  const array = tokens[need];
  if (array === undefined) fail('invalid-argument', `'${need}' is needed and not given`, { need });
  const rows = tokens.tokenCount * tokens.layers * tokens.kvHeads;
  if (need === 'keys') {
    const fits = rows === 0 ? array.length === 0 : array.length > 0 && array.length % rows === 0;
    assertArgument(fits, `keys has ${array.length} values, no multiple of ${rows} rows`, {
      length: array.length,
      rows,
    });
  } else {
    checkLength(need, array, rows);
  }
  for (let index = 0; index < array.length; index++) {
    const value = array[index] ?? NaN;
    if (!Number.isFinite(value) || (value < 0 && need !== 'keys')) {
      rejectValue(tokens, need, index, value);
    }
  }
  return array;
}

/**
 * The tokens at `indices`, in that order, with all arrays given: what is left after an eviction, or
 * the tokens of one block.
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
    ...(tokens.keys && { keys: rows(tokens.keys) }),
    ...(tokens.attention && { attention: rows(tokens.attention) }),
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

function rejectValue(tokens: KvTokens, need: KvNeed, index: number, value: number): never {
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

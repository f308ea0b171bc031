/** Protections, rounded outward to whole blocks. */
import { expect, it } from 'vitest';
import { evictableTokens, protectedBlocks } from './protection.js';

it('rounds outward to whole blocks, and protects a partial last block with the last tokens', () => {
  for (const [firstTokens, lastTokens, tokenCount, start, end] of [
    [3, 4, 18, 4, 12],
    [4, 4, 18, 4, 12],
    [5, 2, 18, 8, 16],
    [5, 3, 18, 8, 12],
    [0, 0, 18, 0, 18],
    [0, 1, 18, 0, 16],
    [0, 1, 20, 0, 16],
    [4, 4, 8, 4, 4],
    [4, 8, 9, 4, 4],
    [8, 0, 5, 5, 5],
    [0, 99, 5, 0, 0],
    [4, 4, 0, 0, 0],
  ] as const) {
    expect(evictableTokens({ firstTokens, lastTokens }, tokenCount, 4)).toEqual({ start, end });
  }
});

it('counts the blocks that are covered', () => {
  expect(protectedBlocks({ firstTokens: 0, lastTokens: 0 }, 4)).toBe(0);
  expect(protectedBlocks({ firstTokens: 1, lastTokens: 5 }, 4)).toBe(3);
  expect(protectedBlocks({ firstTokens: 4, lastTokens: 4 }, 4)).toBe(2);
});

/** The short form of the soak: what the long one would find first. */
import { expect, it } from 'vitest';
import { soak } from './soak.js';

it('simulated requests break no invariant, lose no block and hit what the replica says', () => {
  const { requests, refused, queryTokens, hitTokens, modelTokens } = soak(1_500, () => {});
  expect(requests + refused).toBe(1_500);
  expect(refused).toBeLessThan(30);
  expect(hitTokens).toBe(modelTokens);
  expect(hitTokens / queryTokens).toBeGreaterThan(0.1);
}, 300_000);

/** The full cache: the conformance suite, and nothing ever goes. */
import { describe, expect, it } from 'vitest';
import { describeKvPolicy } from '../testing.js';
import { full } from './full.js';

describeKvPolicy('full', full, { describe, expect, it });

it('keeps every block, however low its score', () => {
  const policy = full({ blockSize: 4 });
  const scores = [-9, 0, 5];
  const state = { tokenCount: 12, cachedTokenCount: 12, blockFilled: true, scores };
  expect(policy.selectVictim(state)).toBeUndefined();
  expect(policy.granularity).toEqual({ prefill: 'none', decode: 'none' });
});

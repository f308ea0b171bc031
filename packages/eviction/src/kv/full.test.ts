/** The full cache: the conformance suite, and nothing ever goes. */
import { describe, expect, it } from 'vitest';
import { describeKvPolicy } from '../testing.js';
import { blocksWith } from '../testing/random-tokens.js';
import { full } from './full.js';

describeKvPolicy('full', full, { describe, expect, it });

it('keeps every block, however low its score', () => {
  const policy = full({ blockSize: 4 });
  expect(policy.selectVictim(blocksWith(12, [-9, 0, 5]))).toBeUndefined();
  expect(policy.granularity).toEqual({ prefill: 'none', decode: 'none' });
});

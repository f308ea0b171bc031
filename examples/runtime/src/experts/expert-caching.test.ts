/** Options of a command line to a caching, and what is refused by name. */
import { expect, it } from 'vitest';
import { parseExpertCaching } from './expert-caching.js';

it('nothing without a budget, and defaults with one', () => {
  expect(parseExpertCaching({ 'expert-prefetch': false })).toBeUndefined();
  const caching = parseExpertCaching({ 'expert-budget': '1.5M' });
  expect(caching).toMatchObject({ budgetBytes: 1.5 * 2 ** 20, prefetch: false });
  expect(caching?.lowBit).toBeUndefined();
  // One policy for each cache.
  expect(caching?.policy()).not.toBe(caching?.policy());
});

it('reads every option', () => {
  const caching = parseExpertCaching({
    'expert-budget': '64K',
    'expert-policy': 'sieve',
    'expert-prefetch': true,
    'expert-low-bit': '3:0.25',
  });
  expect(caching).toMatchObject({ prefetch: true, lowBit: { bits: 3, below: 0.25 } });
  expect(caching?.policy().constructor.name).toBe('Sieve');
});

it.each([
  [{ 'expert-budget': 'much' }, /'much' is no size/],
  [{ 'expert-prefetch': true }, /--expert-prefetch needs --expert-budget/],
  [{ 'expert-policy': 'lru' }, /--expert-policy needs --expert-budget/],
  [{ 'expert-budget': '1M', 'expert-policy': 'fifo' }, /'fifo' is none of lru, lfu/],
  [{ 'expert-budget': '1M', 'expert-policy': 'toString' }, /'toString' is none of/],
  [{ 'expert-budget': '1M', 'expert-low-bit': '5:0.3' }, /'5:0.3' is not BITS:WEIGHT/],
  [{ 'expert-budget': '1M', 'expert-low-bit': '2:0' }, /is not BITS:WEIGHT/],
])('refuses %j', (flags, message) => {
  expect(() => parseExpertCaching(flags)).toThrow(message);
});

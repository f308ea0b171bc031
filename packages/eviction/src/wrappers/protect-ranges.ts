/**
 * Wrapper: further tokens that are never evicted, such as a system prompt, an image or a fact that
 * the user marked.
 *
 * At prefill the tokens of a range stay one by one; at decode the blocks that hold one stay.
 */
import { checkBudget } from '../combine.js';
import { decide, declarationOf } from '../decide.js';
import type { KvPolicy, PositionRange } from '../policy.js';

/**
 * The policy, with ranges of positions protected beside what it protects.
 * @throws VramError `invalid-argument` where the budget is below what is protected then: a range of
 *   n tokens may lie in `ceil((n - 1) / blockSize) + 1` blocks.
 */
export function protectRanges(policy: KvPolicy, ranges: readonly PositionRange[]): KvPolicy {
  const declared = declarationOf(policy);
  const protect = {
    ...policy.protect,
    ranges: [...(policy.protect.ranges ?? []), ...ranges.map(({ start, end }) => ({ start, end }))],
  };
  if (policy.budgetTokens !== Infinity) checkBudget({ ...declared, protect });
  return decide({
    ...declared,
    protect,
    scoreTokens: (tokens) => policy.scoreTokens(tokens),
    scoreBlocks: (tokens) => policy.scoreBlocks(tokens),
    mustEvict: (progress) => policy.mustEvict(progress),
  });
}

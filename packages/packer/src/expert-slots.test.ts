// Slots under a byte budget: never over it, never a whole slot of room left while one is missing.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { planExpertSlots } from './expert-slots.js';

const demand = fc.record({
  slotBytes: fc.integer({ min: 1, max: 50 }),
  experts: fc.integer({ min: 1, max: 9 }),
});

it('checklist 11: stays within the budget and leaves no room for another slot', () => {
  fc.assert(
    fc.property(
      fc.array(demand, { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 0, max: 2000 }),
      (widths, budgetBytes) => {
        const least = widths.reduce((sum, { slotBytes }) => sum + slotBytes, 0);
        if (budgetBytes < least) {
          expect(() => planExpertSlots(widths, budgetBytes)).toThrow(/budget/);
          return;
        }
        const slots = planExpertSlots(widths, budgetBytes);
        const used = widths.reduce((sum, { slotBytes }, i) => sum + slotBytes * (slots[i] ?? 0), 0);
        expect(used).toBeLessThanOrEqual(budgetBytes);
        widths.forEach(({ slotBytes, experts }, i) => {
          expect(slots[i]).toBeGreaterThan(0);
          expect(slots[i]).toBeLessThanOrEqual(experts);
          if ((slots[i] ?? 0) < experts) expect(used + slotBytes).toBeGreaterThan(budgetBytes);
        });
      },
    ),
  );
});

it('gives widths equal parts of their experts, and fallbacks what they ask for', () => {
  const fallback = { slotBytes: 5, experts: 0, atLeast: 3 };
  const wide = { slotBytes: 20, experts: 8 };
  const narrow = { slotBytes: 10, experts: 4 };
  expect(planExpertSlots([wide, narrow, fallback], 15 + 4 * 20 + 2 * 10)).toEqual([4, 2, 3]);
});

/**
 * How many experts of each width a byte budget holds: pure.
 */
import { assertArgument, checkInteger, fail } from '@vramkit/core';

/** Experts of one width. */
export interface ExpertDemand {
  /** Bytes of one expert at this width. */
  readonly slotBytes: number;
  /** Experts whose own width it is; 0 where it is for fallbacks alone. */
  readonly experts: number;
  /** Slots to take in any case. Default: 1 where there are experts. */
  readonly atLeast?: number;
}

/**
 * Slots of each width: what each has to have, then one after the other to the width with the
 * smallest part of its experts resident, while the budget lasts. Never more slots than experts,
 * but for `atLeast`.
 * @throws VramError `out-of-memory` where the budget is below the least, with both numbers.
 */
export function planExpertSlots(widths: readonly ExpertDemand[], budgetBytes: number): number[] {
  checkInteger('budgetBytes', budgetBytes);
  const slots = widths.map(({ experts, atLeast }) => atLeast ?? Math.min(1, experts));
  const used = (): number =>
    widths.reduce((sum, { slotBytes }, i) => sum + slotBytes * (slots[i] ?? 0), 0);
  for (const { slotBytes, experts } of widths) {
    checkInteger('slotBytes', slotBytes, 1);
    checkInteger('experts', experts);
  }
  assertArgument(widths.length > 0, 'there are no widths');
  if (used() > budgetBytes) {
    fail('out-of-memory', `the least slots take ${used()} B of a budget of ${budgetBytes} B`, {
      neededBytes: used(),
      budgetBytes,
    });
  }
  for (let left = budgetBytes - used(); ;) {
    let next = -1;
    let leastPart = 1;
    widths.forEach(({ slotBytes, experts }, i) => {
      const part = (slots[i] ?? 0) / experts;
      if (slotBytes > left || !(part < leastPart)) return;
      next = i;
      leastPart = part;
    });
    if (next < 0) return slots;
    slots[next] = (slots[next] ?? 0) + 1;
    left -= widths[next]?.slotBytes ?? 0;
  }
}

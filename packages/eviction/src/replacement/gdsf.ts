/**
 * GDSF, greedy dual size frequency: the copy of least value per byte goes first, and value fades.
 *
 * The priority of a copy is `clock + uses * reloadCost / sizeBytes`, set when it arrives and at each
 * use. The clock is the priority of the last victim, so that what has not been used for long falls
 * behind what is used now. Many small or dear copies stay for one large or cheap one.
 *
 * A copy that may not go is set aside, until its next use or until as many victims were named as
 * copies were held: then it comes back as used now.
 *
 * What it gets wrong: it serves the sum of costs saved per byte, so a large copy that is used
 * steadily can lose to many small ones that are not.
 *
 * Cost: O(log n), the search amortised. Source: Cherkasova, "Improving WWW Proxies Performance with
 * Greedy-Dual-Size-Frequency Caching Policy" (HP Labs HPL-98-69, 1998). A size of 0 counts as 1.
 */
import { assertArgument, assertInvariant } from '@vramkit/core';
import { HeldSlots, type Replacement, type ReplacementOptions } from './held-slots.js';
import { SlotHeap } from './slot-heap.js';

const HEAP = 1;
const ASIDE = 2;

/** Least value per byte first. */
export function gdsf<Id>(options: ReplacementOptions<Id> = {}): Replacement<Id> {
  const slots = new HeldSlots<Id>(options, ASIDE);
  const { index, lists } = slots;
  const heap = new SlotHeap();
  /** Cost per byte of each slot, and its uses. */
  const value: number[] = [];
  const uses: number[] = [];
  /** How many victims must have been named before a slot set aside comes back. */
  const comesBack: number[] = [];
  let clock = 0;
  let victims = 0;

  const enter = (slot: number): void => {
    lists.push(HEAP, slot);
    heap.push(slot, clock + (uses[slot] ?? NaN) * (value[slot] ?? NaN));
  };
  const leave = (slot: number): void => {
    if (lists.listOf(slot) === HEAP) heap.take(slot);
    lists.unlink(slot);
  };
  const setAside = (slot: number): void => {
    leave(slot);
    comesBack[slot] = victims + slots.size;
    lists.push(ASIDE, slot);
  };

  return {
    get size() {
      return slots.size;
    },
    inserted(id, { sizeBytes, reloadCost }) {
      const perByte = reloadCost / Math.max(1, sizeBytes);
      assertArgument(
        perByte >= 0 && Number.isFinite(perByte),
        `a cost of ${reloadCost} for ${sizeBytes} bytes is no value`,
        { reloadCost: String(reloadCost), sizeBytes: String(sizeBytes) },
      );
      const slot = slots.arriving(id);
      value[slot] = perByte;
      uses[slot] = 1;
      enter(slot);
    },
    touched(id) {
      const slot = slots.resident(id);
      uses[slot] = (uses[slot] ?? 0) + 1;
      leave(slot);
      enter(slot);
    },
    removed(id, reason) {
      const slot = slots.resident(id);
      if (reason === 'capacity') {
        victims += 1;
        clock = Math.max(clock, lists.listOf(slot) === HEAP ? heap.priority(slot) : 0);
      }
      leave(slot);
      index.drop(id, slot);
    },
    chooseVictim(mayEvict) {
      for (;;) {
        const slot = lists.oldest(ASIDE);
        if (slot === 0 || (comesBack[slot] ?? 0) > victims) break;
        leave(slot);
        enter(slot);
      }
      const before = lists.count(ASIDE);
      for (let slot = heap.lowest; slot !== 0; slot = heap.lowest) {
        const id = index.idOf(slot);
        if (mayEvict(id)) return id;
        setAside(slot);
      }
      return before === 0 ? undefined : slots.search(ASIDE, mayEvict);
    },
    check() {
      heap.check();
      for (const slot of slots.check(HEAP)) {
        assertInvariant(heap.priority(slot) >= 0, `the priority of slot ${slot}`);
      }
      slots.check(ASIDE);
    },
  };
}

/**
 * The least total error within a byte target: exactly, and quickly.
 *
 * {@link knapsackAllocator} is dynamic programming over bytes: units one after the other, and for
 * every number of bytes the least error that fits. Sizes are divided by their greatest common
 * divisor; where the table would still exceed `maxCells`, sizes are rounded up to coarser steps, so
 * that the result may be short of the best but never over the target.
 *
 * {@link lagrangianAllocator} starts with the cheapest choices and buys the step with the most
 * error saved a byte, along each unit's lower convex hull, while it fits. It is optimal at the
 * sizes it passes and near between them; its cost is n log n.
 */
import { assertArgument } from '@vramkit/core';
import { checkTarget, type AllocationUnit, type Allocator } from './allocator.js';

/** Options of {@link knapsackAllocator}. */
export interface KnapsackOptions {
  /** Most bytes of all units together; see `bytesForBits` for a target in bits. */
  readonly budgetBytes: number;
  /** Most table cells, a byte each. Default: 64 Mi. */
  readonly maxCells?: number;
}

function greatestDivisor(a: number, b: number): number {
  while (b !== 0) [a, b] = [b, a % b];
  return a;
}

function knapsack(units: readonly AllocationUnit[], options: KnapsackOptions): number[] {
  const { budgetBytes, maxCells = 2 ** 26 } = options;
  checkTarget(units, budgetBytes);
  const least = units.map(({ choices }) => Math.min(...choices.map(({ sizeBytes }) => sizeBytes)));
  const spare = budgetBytes - least.reduce((sum, each) => sum + each, 0);
  const extras = units.map(({ choices }, i) => choices.map((c) => c.sizeBytes - (least[i] ?? 0)));
  const most = extras.reduce((sum, each) => sum + Math.max(...each), 0);
  const divisor = extras.flat().reduce(greatestDivisor, 0) || 1;
  const room = Math.min(spare, most);
  const unitBytes = Math.max(1, divisor, Math.ceil((room * units.length) / maxCells));
  const cells = Math.floor(room / unitBytes) + 1;
  let best = new Float64Array(cells);
  const picks = new Uint8Array(cells * units.length);
  units.forEach(({ choices }, i) => {
    const next = new Float64Array(cells).fill(Infinity);
    choices.forEach(({ error }, choice) => {
      const cost = Math.ceil((extras[i]?.[choice] ?? 0) / unitBytes);
      for (let at = cost; at < cells; at++) {
        const total = (best[at - cost] ?? 0) + error;
        if (total >= (next[at] ?? 0)) continue;
        next[at] = total;
        picks[i * cells + at] = choice;
      }
    });
    best = next;
  });
  const chosen = units.map(() => 0);
  for (let i = units.length - 1, at = cells - 1; i >= 0; i--) {
    const choice = picks[i * cells + at] ?? 0;
    chosen[i] = choice;
    at -= Math.ceil((extras[i]?.[choice] ?? 0) / unitBytes);
  }
  return chosen;
}

/** The least error within the target, exactly where the table allows; see the head of this file. */
export function knapsackAllocator(options: KnapsackOptions): Allocator {
  return { name: 'knapsack', allocate: (units) => knapsack(units, options) };
}

interface Step {
  readonly unit: number;
  readonly choice: number;
  readonly bytes: number;
  /** Error saved a byte. */
  readonly rate: number;
}

/** Steps along the lower convex hull of a unit's choices, by falling rate. */
function hullSteps(unit: AllocationUnit, index: number): { first: number; steps: Step[] } {
  const order = unit.choices
    .map((choice, i) => ({ ...choice, i }))
    .sort((a, b) => a.sizeBytes - b.sizeBytes || a.error - b.error);
  const hull: typeof order = [];
  const rate = (a: (typeof order)[number], b: (typeof order)[number]): number =>
    (a.error - b.error) / (b.sizeBytes - a.sizeBytes);
  for (const point of order) {
    const last = hull.at(-1);
    if (last !== undefined && point.error >= last.error) continue;
    while (hull.length > 1) {
      const [a, b] = [hull.at(-2), hull.at(-1)];
      if (a === undefined || b === undefined || rate(a, b) > rate(b, point)) break;
      hull.pop();
    }
    hull.push(point);
  }
  const steps = hull.slice(1).flatMap((point, i): Step[] => {
    const before = hull[i];
    if (before === undefined) return [];
    const bytes = point.sizeBytes - before.sizeBytes;
    return [{ unit: index, choice: point.i, bytes, rate: rate(before, point) }];
  });
  return { first: hull[0]?.i ?? 0, steps };
}

/** The greedy walk along error saved a byte; see the head of this file. */
export function lagrangianAllocator(options: { readonly budgetBytes: number }): Allocator {
  assertArgument(options.budgetBytes >= 0, 'the target is negative');
  return {
    name: 'lagrangian',
    allocate: (units) => {
      checkTarget(units, options.budgetBytes);
      const hulls = units.map(hullSteps);
      const chosen = hulls.map(({ first }) => first);
      let free = options.budgetBytes;
      units.forEach(({ choices }, i) => (free -= choices[chosen[i] ?? 0]?.sizeBytes ?? 0));
      const stopped = new Set<number>();
      const steps = hulls.flatMap((hull) => hull.steps);
      for (const step of steps.sort((a, b) => b.rate - a.rate || a.unit - b.unit)) {
        // A step that does not fit ends its unit: the later ones start from it.
        if (stopped.has(step.unit)) continue;
        if (step.bytes > free) stopped.add(step.unit);
        else {
          chosen[step.unit] = step.choice;
          free -= step.bytes;
        }
      }
      return chosen;
    },
  };
}

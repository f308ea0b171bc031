// Allocators against exhaustive search over small random problems, and the rules around them.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { CodeBits } from '../matrix-layout.js';
import {
  allocateBits,
  bytesForBits,
  reachableBytes,
  type AllocationUnit,
  type Allocator,
} from './allocator.js';
import { kMeans, kMeansAllocator, uniformAllocator } from './k-means.js';
import { knapsackAllocator, lagrangianAllocator } from './knapsack.js';
import { applyRules, matchesName, ruleFor, tieUnits, unmatchedRules, widthsOf } from './rules.js';

const WIDTHS: readonly CodeBits[] = [2, 3, 4, 8];

function unit(id: string, weights: number, errors: readonly number[], layer = 0): AllocationUnit {
  const choices = errors.map((error, i) => {
    const bits = WIDTHS[i] ?? 8;
    return { bits, sizeBytes: (weights * bits) / 8, error };
  });
  return { id, layer, weights, score: errors[0] ?? 0, choices };
}

/** Units of several sizes whose errors fall with the width. */
const problems = fc.array(
  fc.tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 1000 })),
  { minLength: 1, maxLength: 5 },
);

function unitsOf(problem: readonly (readonly [number, number])[]): AllocationUnit[] {
  return problem.map(([size, scale], i) =>
    unit(`u${i}`, size * 64, [scale, scale / (3 + (i % 2)), scale / 20, scale / 5000]),
  );
}

/** The least error within the target, by trying everything. */
function exhaustive(units: readonly AllocationUnit[], budgetBytes: number): number {
  let least = Infinity;
  const walk = (i: number, bytes: number, error: number): void => {
    if (bytes > budgetBytes) return;
    const next = units[i];
    if (next === undefined) least = Math.min(least, error);
    else for (const c of next.choices) walk(i + 1, bytes + c.sizeBytes, error + c.error);
  };
  walk(0, 0, 0);
  return least;
}

describe('checklist 10 and 11: to a byte target', () => {
  const targeted = fc.tuple(problems, fc.double({ min: 0, max: 1.1, noNaN: true }));

  it('the knapsack is the best there is, and never over the target', () => {
    fc.assert(
      fc.property(targeted, ([problem, part]) => {
        const units = unitsOf(problem);
        const { leastBytes, mostBytes } = reachableBytes(units);
        const budgetBytes = Math.floor(leastBytes + part * (mostBytes - leastBytes));
        const found = allocateBits(units, knapsackAllocator({ budgetBytes }));
        expect(found.sizeBytes).toBeLessThanOrEqual(budgetBytes);
        expect(found.error).toBeCloseTo(exhaustive(units, budgetBytes), 9);
      }),
      { seed: 1 },
    );
  });

  it('a knapsack with a small table and the Lagrangian stay within the target', () => {
    fc.assert(
      fc.property(targeted, ([problem, part]) => {
        const units = unitsOf(problem);
        const { leastBytes, mostBytes } = reachableBytes(units);
        const budgetBytes = Math.floor(leastBytes + part * (mostBytes - leastBytes));
        const coarse = knapsackAllocator({ budgetBytes, maxCells: 64 });
        for (const allocator of [coarse, lagrangianAllocator({ budgetBytes })]) {
          const found = allocateBits(units, allocator);
          expect(found.sizeBytes).toBeLessThanOrEqual(budgetBytes);
          const best = exhaustive(units, budgetBytes);
          expect(found.error).toBeGreaterThanOrEqual(best - 1e-9);
        }
      }),
      { seed: 2 },
    );
  });

  it('the Lagrangian is the best there is at the sizes it passes', () => {
    const units = unitsOf([
      [2, 900],
      [2, 100],
      [2, 10],
    ]);
    const walk = [2, 3, 4].map((bits) => bytesForBits(units, bits));
    for (const budgetBytes of walk) {
      const found = allocateBits(units, lagrangianAllocator({ budgetBytes }));
      expect(found.error).toBeLessThanOrEqual(exhaustive(units, found.sizeBytes) * (1 + 1e-12));
    }
  });

  it('says what can be reached where a target cannot', () => {
    const units = unitsOf([
      [1, 5],
      [3, 7],
    ]);
    for (const allocator of [
      knapsackAllocator({ budgetBytes: 10 }),
      lagrangianAllocator({ budgetBytes: 10 }),
    ]) {
      expect(() => allocateBits(units, allocator)).toThrow(
        expect.objectContaining({
          code: 'invalid-argument',
          context: { budgetBytes: 10, leastBytes: 64, mostBytes: 256 },
        }),
      );
    }
  });

  it('checklist 15: several targets from the same measurements', () => {
    const units = unitsOf([
      [2, 900],
      [4, 100],
      [1, 400],
    ]);
    const errors = [2.5, 3, 4].map((bits) => {
      const budgetBytes = bytesForBits(units, bits);
      const found = allocateBits(units, knapsackAllocator({ budgetBytes }));
      expect(found.bitsPerWeight).toBeLessThanOrEqual(bits);
      return found.error;
    });
    expect(errors).toEqual([...errors].sort((a, b) => b - a));
  });
});

describe('k-means', () => {
  /** Least cost over all ways to label the values. */
  function bestCost(values: readonly number[], clusters: number): number {
    let least = Infinity;
    const labels = values.map(() => 0);
    const walk = (i: number): void => {
      if (i < values.length) {
        for (let k = 0; k < clusters; k++) {
          labels[i] = k;
          walk(i + 1);
        }
      } else least = Math.min(least, costOf(values, labels));
    };
    walk(0);
    return least;
  }

  function costOf(values: readonly number[], labels: readonly number[]): number {
    let cost = 0;
    for (const label of new Set(labels)) {
      const members = values.filter((_, i) => labels[i] === label);
      const mean = members.reduce((sum, each) => sum + each, 0) / members.length;
      for (const each of members) cost += (each - mean) ** 2;
    }
    return cost;
  }

  it('checklist 10: costs what the best labelling costs; groups are in order', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 30 }), { minLength: 1, maxLength: 7 }),
        fc.integer({ min: 1, max: 3 }),
        (values, clusters) => {
          const labels = kMeans(values, clusters);
          expect(costOf(values, labels)).toBeCloseTo(bestCost(values, clusters), 9);
          values.forEach((a, i) =>
            values.forEach((b, j) => {
              if (a === b) expect(labels[i]).toBe(labels[j]);
              if (a < b) expect(labels[i]).toBeLessThanOrEqual(labels[j] ?? -1);
            }),
          );
        },
      ),
      { seed: 4 },
    );
  });

  const scored = (scores: readonly number[], layers: readonly number[] = []): AllocationUnit[] =>
    scores.map((score, i) => ({ ...unit(`u${i}`, 64, [4, 3, 2, 1], layers[i] ?? 0), score }));
  const widths = (units: readonly AllocationUnit[], allocator: Allocator): number[] =>
    allocateBits(units, allocator).units.map(({ bits }) => bits);

  it('gives the group with the highest mean the most bits', () => {
    const units = scored([1, 9, 5, 1.1, 5.1, 9.2]);
    expect(widths(units, kMeansAllocator())).toEqual([2, 4, 3, 2, 3, 4]);
  });

  it('clusters layers apart where asked to', () => {
    const units = scored([1, 2, 3, 101, 102, 103], [0, 0, 0, 1, 1, 1]);
    expect(widths(units, kMeansAllocator({ scope: 'layer' }))).toEqual([2, 3, 4, 2, 3, 4]);
    expect(widths(units, kMeansAllocator({ bits: [4, 2] }))).toEqual([2, 2, 2, 4, 4, 4]);
  });

  it('leaves the narrowest widths unused where scores are alike', () => {
    expect(widths(scored([7, 7, 7]), kMeansAllocator())).toEqual([4, 4, 4]);
    expect(widths(scored([7, 7, 8]), kMeansAllocator())).toEqual([3, 3, 4]);
  });

  it('uniform gives one width', () => {
    expect(widths(scored([1, 2]), uniformAllocator(3))).toEqual([3, 3]);
  });
});

describe('checklist 13: rules', () => {
  it('matches exact names, globs and regular expressions', () => {
    expect(matchesName('a.b', 'a.b')).toBe(true);
    expect(matchesName('a.b', 'axb')).toBe(false);
    expect(matchesName('layers.*.down', 'layers.3.experts.1.down')).toBe(true);
    expect(matchesName('layers.?.down', 'layers.10.down')).toBe(false);
    expect(matchesName(/experts\.\d+/g, 'layers.0.experts.7')).toBe(true);
  });

  it('an exact name goes before a glob, that before an expression, the last of equals', () => {
    const rules = [
      { match: 'x.1', bits: 8 },
      { match: 'x.*', bits: 2 },
      { match: 'x.?', bits: 3 },
      { match: /x/, bits: 4 },
    ] as const;
    expect(['x.1', 'x.2', 'ax'].map((name) => ruleFor(rules, name)?.bits)).toEqual([8, 3, 4]);
    expect(unmatchedRules([{ match: 'y*' }, rules[0]], ['x.1'])).toEqual([{ match: 'y*' }]);
  });

  it('floors and fixed widths hold for every allocator; an impossible one is refused', () => {
    const units = [unit('router', 64, [4, 3, 2, 1]), unit('e.0', 64, [4, 3, 2, 1])];
    const kept = applyRules(units, [
      { match: 'router', bits: 8 },
      { match: 'e.*', minBits: 3, maxBits: 4 },
    ]);
    const { leastBytes: budgetBytes } = reachableBytes(kept);
    for (const allocator of [
      knapsackAllocator({ budgetBytes }),
      lagrangianAllocator({ budgetBytes }),
      uniformAllocator(2),
    ]) {
      expect(allocateBits(kept, allocator).units.map(({ bits }) => bits)).toEqual([8, 3]);
    }
    const two = [unit('w', 64, [4])];
    expect(() => applyRules(two, [{ match: 'w', minBits: 4 }])).toThrow(/leaves no width for 'w'/);
  });
});

describe('checklist 14: ties', () => {
  it('gate and up get one width, down its own', () => {
    const units = [
      unit('gate', 64, [9, 5, 2, 1]),
      unit('down', 64, [1, 0.5, 0.3, 0.1]),
      unit('up', 64, [9, 5, 2, 1]),
    ];
    const tied = tieUnits(units, [['gate', 'up']]);
    const found = allocateBits(tied.units, knapsackAllocator({ budgetBytes: 16 + 64 }));
    const widths = widthsOf(found, tied.members);
    expect([...widths.keys()].sort()).toEqual(['down', 'gate', 'up']);
    expect(widths.get('gate')).toBe(widths.get('up'));
    expect(widths.get('gate')).toBe(4);
    expect(found.units).toHaveLength(2);
    expect(() => tieUnits(units, [['gate', 'nobody']])).toThrow(/unknown or tied twice/);
  });
});

it('refuses no units, repeated ids and units without a width', () => {
  const invalid = expect.objectContaining({ code: 'invalid-argument' });
  const one = unit('a', 64, [1]);
  expect(() => allocateBits([], uniformAllocator(4))).toThrow(invalid);
  expect(() => allocateBits([one, one], uniformAllocator(4))).toThrow(invalid);
  expect(() => allocateBits([unit('a', 64, [])], uniformAllocator(4))).toThrow(invalid);
});

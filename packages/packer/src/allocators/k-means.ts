/**
 * MoPEQ's allocation: scores are clustered into as many groups as there are widths, and the group
 * with the highest mean gets the most bits.
 *
 * One-dimensional k-means has an exact solution: clusters are runs of the sorted scores, and the
 * best cuts follow by dynamic programming over prefix sums, in O(clusters n^2). No seed, no local
 * minimum. Equal scores stay together. Where there are fewer distinct scores than widths, the
 * narrowest widths go unused. There is no size target: the average follows from the scores.
 *
 * Source: Chitty-Venkata et al., MoPEQ (2025), which uses Lloyd's iterations; Wang and Song,
 * Ckmeans.1d.dp (2011).
 */
import { assertArgument } from '@vramkit/core';
import type { CodeBits } from '../matrix-layout.js';
import type { AllocationUnit, Allocator } from './allocator.js';

/** Options of {@link kMeansAllocator}. */
export interface KMeansOptions {
  /** Widths to hand out. Default: 4, 3, 2. */
  readonly bits?: readonly CodeBits[];
  /** Whether each layer is clustered alone, or all units at once. Default: 'model'. */
  readonly scope?: 'layer' | 'model';
}

/**
 * The exact clustering of `values` into at most `clusters` groups: for each value the index of its
 * group, 0 the one of lowest mean.
 */
export function kMeans(values: readonly number[], clusters: number): number[] {
  const distinct = [...new Set(values)].sort((a, b) => a - b);
  const count = Math.min(clusters, distinct.length);
  const weight = [0];
  const sum = [0];
  const square = [0];
  // Around the mean, so that large equal parts do not cancel in the squares.
  const mean = values.reduce((total, value) => total + value, 0) / values.length;
  for (const value of distinct) {
    const times = values.filter((each) => each === value).length;
    const centred = value - mean;
    weight.push((weight.at(-1) ?? 0) + times);
    sum.push((sum.at(-1) ?? 0) + times * centred);
    square.push((square.at(-1) ?? 0) + times * centred * centred);
  }
  const part = (prefix: readonly number[], from: number, to: number): number =>
    (prefix[to] ?? 0) - (prefix[from] ?? 0);
  const cost = (from: number, to: number): number =>
    part(square, from, to) - part(sum, from, to) ** 2 / part(weight, from, to);
  // best[k][n]: least cost of the first n distinct values in k + 1 runs; cuts[k][n]: the last run's
  // start.
  let best = distinct.map((_, n) => cost(0, n + 1));
  const cuts: number[][] = [];
  for (let k = 1; k < count; k++) {
    const next = best.map(() => Infinity);
    const cut = best.map(() => 0);
    for (let n = k; n < distinct.length; n++) {
      for (let start = k; start <= n; start++) {
        const total = (best[start - 1] ?? Infinity) + cost(start, n + 1);
        if (total >= (next[n] ?? Infinity)) continue;
        next[n] = total;
        cut[n] = start;
      }
    }
    best = next;
    cuts.push(cut);
  }
  const groupOf = new Map<number, number>();
  for (let k = count - 1, end = distinct.length; k >= 0; k--) {
    const start = k === 0 ? 0 : (cuts[k - 1]?.[end - 1] ?? 0);
    for (const value of distinct.slice(start, end)) groupOf.set(value, k);
    end = start;
  }
  return values.map((value) => groupOf.get(value) ?? 0);
}

/** The choice nearest to `bits`: the narrowest that has as many, else the widest. */
export function choiceFor({ choices }: AllocationUnit, bits: number): number {
  const found = choices.findIndex((choice) => choice.bits >= bits);
  return found < 0 ? choices.length - 1 : found;
}

/** MoPEQ's allocation; see the head of this file. */
export function kMeansAllocator(options: KMeansOptions = {}): Allocator {
  const { scope = 'model' } = options;
  const bits = [...(options.bits ?? [4, 3, 2])].sort((a, b) => b - a);
  assertArgument(bits.length > 0, 'k-means needs at least one width');
  return {
    name: `kMeans-${scope}`,
    allocate: (units) => {
      const chosen = units.map(() => 0);
      const layers = scope === 'layer' ? new Set(units.map(({ layer }) => layer)) : [undefined];
      for (const layer of layers) {
        const members = units
          .map((unit, index) => ({ unit, index }))
          .filter(({ unit }) => layer === undefined || unit.layer === layer);
        const groups = kMeans(
          members.map(({ unit }) => unit.score),
          bits.length,
        );
        const highest = Math.max(...groups);
        members.forEach(({ unit, index }, i) => {
          chosen[index] = choiceFor(unit, bits[highest - (groups[i] ?? 0)] ?? 0);
        });
      }
      return chosen;
    },
  };
}

/** One width for all. */
export function uniformAllocator(bits: CodeBits): Allocator {
  return {
    name: `uniform-${bits}`,
    allocate: (units) => units.map((unit) => choiceFor(unit, bits)),
  };
}

/**
 * Scores from routing counts, and products of scores.
 *
 * An expert that no calibration token reached has no count to trust: it gets `priorCount` and a
 * warning, never a zero that would starve it nor a NaN. What frequency gets wrong: a router trained
 * for balance uses all experts alike, and a rarely used expert may still be the one that matters.
 */
import { assertArgument } from '@vramkit/core';
import type { Scorer } from './scorer.js';

/** Options of {@link activationFrequency}. */
export interface FrequencyOptions {
  /** Tokens routed to each unit, by id. */
  readonly counts: ReadonlyMap<string, number>;
  /** Stands for units without a count. Default: 1. */
  readonly priorCount?: number;
  /** Told of each such unit. Default: nobody. */
  readonly onWarning?: (message: string) => void;
}

/** The number of tokens that used a unit. */
export function activationFrequency(options: FrequencyOptions): Scorer {
  const { counts, priorCount = 1, onWarning } = options;
  for (const [id, count] of counts) {
    assertArgument(count >= 0 && count < Infinity, `count of '${id}' is ${count}`, { id });
  }
  return {
    name: 'activationFrequency',
    score: ({ id }) => {
      const count = counts.get(id) ?? 0;
      if (count > 0) return count;
      onWarning?.(`'${id}' was never used; it counts as ${priorCount} tokens`);
      return priorCount;
    },
  };
}

/** A factor of {@link hybrid}. */
export interface HybridPart {
  readonly scorer: Scorer;
  /** Power of the score. Default: 1. */
  readonly exponent?: number;
}

/**
 * The product of scores, each to a power: frequency times sensitivity, say.
 * @throws VramError `invalid-argument` without parts, or for a negative score.
 */
export function hybrid(parts: readonly HybridPart[]): Scorer {
  assertArgument(parts.length > 0, 'hybrid needs at least one score');
  return {
    name: `hybrid(${parts.map(({ scorer }) => scorer.name).join(', ')})`,
    score: async (unit) => {
      let product = 1;
      for (const { scorer, exponent = 1 } of parts) {
        const score = await scorer.score(unit);
        assertArgument(score >= 0, `${scorer.name} of '${unit.id}' is ${score}`, { id: unit.id });
        product *= score ** exponent;
      }
      return product;
    },
  };
}

/**
 * Quantizers of this package as other threads can make them anew.
 *
 * A thread cannot be sent a function, so what makes a quantizer is kept beside it as data: the name
 * of its maker and its options. It belongs to that one object: a copy with another `quantize` is a
 * quantizer of its own, which nothing is known about.
 */
import type { Quantizer } from './quantizer.js';

/** What makes a quantizer; plain data. */
export interface QuantizerRecipe {
  /** The function that makes it. */
  readonly make: 'gptq' | 'hqq' | 'optRtn' | 'rtn' | 'signRound';
  /** The argument of that function. */
  readonly options: object;
}

const RECIPE = Symbol('recipe');

/** The quantizer with the recipe that makes it. */
export function builtIn(recipe: QuantizerRecipe, quantizer: Quantizer): Quantizer {
  // Not enumerable, so that no copy has it.
  return Object.defineProperty(quantizer, RECIPE, { value: recipe });
}

/** What makes a quantizer; `undefined` where it is a user's own. */
export function recipeOf(
  quantizer: Quantizer & { readonly [RECIPE]?: QuantizerRecipe },
): QuantizerRecipe | undefined {
  return Object.hasOwn(quantizer, RECIPE) ? quantizer[RECIPE] : undefined;
}

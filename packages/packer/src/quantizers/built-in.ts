/**
 * Quantizers of this package as other threads can make them anew.
 *
 * A thread cannot be sent a function, so what makes a quantizer is kept beside it as data: the name
 * of its maker and its options. It is private to the object: a copy with another `quantize` is a
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

class BuiltIn implements Quantizer {
  readonly name: string;
  readonly needs: Quantizer['needs'];
  readonly quantize: Quantizer['quantize'];
  readonly #recipe: QuantizerRecipe;

  constructor(recipe: QuantizerRecipe, { name, needs, quantize }: Quantizer) {
    this.name = name;
    this.needs = needs;
    this.quantize = quantize;
    this.#recipe = recipe;
  }

  static recipeOf(quantizer: Quantizer): QuantizerRecipe | undefined {
    return #recipe in quantizer ? quantizer.#recipe : undefined;
  }
}

/** The quantizer with the recipe that makes it. */
export function builtIn(recipe: QuantizerRecipe, quantizer: Quantizer): Quantizer {
  return new BuiltIn(recipe, quantizer);
}

/** What makes a quantizer; `undefined` where it is a user's own. */
export function recipeOf(quantizer: Quantizer): QuantizerRecipe | undefined {
  return BuiltIn.recipeOf(quantizer);
}

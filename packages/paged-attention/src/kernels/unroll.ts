/**
 * Repeats WGSL text. Drivers keep a local array in registers only where every index is a constant;
 * named variables do not depend on how well a driver unrolls loops.
 *
 * The opposite also has its place. Software drivers turn each memory access into hundreds of
 * instructions, so that a loop of constant length around one, which they unroll, costs seconds of
 * compilation. Kernels multiply the bound of such a loop by a uniform named `one`, which is 1 and
 * which no compiler knows.
 */

/** `text(0)`, `text(1)`, ... `text(count - 1)`, one per line. */
export function unroll(count: number, text: (index: number) => string): string {
  return Array.from({ length: count }, (_, index) => text(index)).join('\n      ');
}

/** A logit below all others, finite so that a difference of two is never NaN. */
export const LOWEST = '-3.0e38';

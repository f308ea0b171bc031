/**
 * Compares what a kernel gave with what its CPU twin says.
 *
 * An element passes where `|actual - expected| <= absolute + epsilon * magnitude`. The magnitude is
 * `|expected|`, or what the caller states: for a sum with cancellation it is the sum of the
 * absolute terms, which is what the rounding error grows with. NaN equals NaN, an infinity itself.
 */
import { elementCount, type Shape } from '../shape.js';

/** How far apart two arrays may be. */
export interface CompareOptions {
  /** Allowed difference at magnitude 0. Default: 0. */
  readonly absolute?: number;
  /** Allowed difference per unit of magnitude. Default: 0. */
  readonly epsilon?: number;
  /** Magnitude of each element. Default: `|expected|`. */
  readonly magnitudes?: ArrayLike<number>;
  /** Shape of the data, to name elements by indices. Default: flat. */
  readonly shape?: Shape;
  /** What is compared, for the message. Default: 'array'. */
  readonly label?: string;
}

/** What {@link compareArrays} measured. */
export interface Comparison {
  /** Largest absolute difference. */
  readonly maxError: number;
  /** Largest difference as a share of what was allowed; 0 where all are equal. */
  readonly maxShareOfTolerance: number;
}

interface Miss {
  readonly index: number;
  readonly error: number;
  readonly allowed: number;
}

/** Misses that the message lists. */
const LISTED_MISSES = 5;

/**
 * Checks `actual` against `expected`, element by element.
 * @returns How close they are.
 * @throws Error with the count of misses, the worst and the first ones, where they are too far
 * apart or differ in length.
 */
export function compareArrays(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  options: CompareOptions = {},
): Comparison {
  const { absolute = 0, epsilon = 0, label = 'array', shape } = options;
  if (!(absolute >= 0 && epsilon >= 0)) throw new Error(`${label}: tolerances must be >= 0`);
  const lengths = [actual.length, options.magnitudes?.length ?? expected.length];
  if (shape !== undefined) lengths.push(elementCount(shape));
  if (lengths.some((length) => length !== expected.length)) {
    throw new Error(`${label}: lengths ${lengths.join(', ')} differ from ${expected.length}`);
  }
  const misses: Miss[] = [];
  let maxError = 0;
  let maxShareOfTolerance = 0;
  for (let index = 0; index < expected.length; index++) {
    const [a, e] = [at(actual, index), at(expected, index)];
    if (Object.is(a, e) || a === e) continue;
    const magnitude = options.magnitudes ? at(options.magnitudes, index) : Math.abs(e);
    const allowed = absolute + epsilon * magnitude;
    const difference = Math.abs(a - e);
    // A NaN or an infinity on one side only is infinitely wrong, whatever is allowed.
    const error = Number.isFinite(difference) ? difference : Infinity;
    maxError = Math.max(maxError, error);
    maxShareOfTolerance = Math.max(maxShareOfTolerance, error / allowed);
    if (error === Infinity || error > allowed) misses.push({ index, error, allowed });
  }
  if (misses.length > 0) throw new Error(describeMisses(misses, actual, expected, label, shape));
  return { maxError, maxShareOfTolerance };
}

function describeMisses(
  misses: readonly Miss[],
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  label: string,
  shape: Shape | undefined,
): string {
  const worst = misses.reduce((a, b) => (b.error / b.allowed > a.error / a.allowed ? b : a));
  const line = ({ index, error, allowed }: Miss): string =>
    `${indices(index, shape)}: got ${at(actual, index)}, expected ${at(expected, index)}, ` +
    `off by ${error.toExponential(3)}, allowed ${allowed.toExponential(3)}`;
  return [
    `${label}: ${misses.length} of ${expected.length} elements differ too much`,
    `  worst ${line(worst)}`,
    ...misses.slice(0, LISTED_MISSES).map((miss) => `  ${line(miss)}`),
  ].join('\n');
}

/** `[row, column]` of a flat index, or `[index]` without a shape. */
function indices(index: number, shape: Shape = [0]): string {
  let rest = index;
  const parts: number[] = [];
  for (const extent of [...shape].reverse().slice(0, -1)) {
    parts.unshift(rest % extent);
    rest = Math.floor(rest / extent);
  }
  return `[${[rest, ...parts].join(', ')}]`;
}

/** An element whose index is in range. */
function at(array: ArrayLike<number>, index: number): number {
  return array[index] ?? NaN;
}

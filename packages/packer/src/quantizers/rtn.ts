/**
 * Round to nearest: scale and minimum from the extremes of a group, in three conventions.
 *
 *     asymmetric            range [min(0, least), max(0, greatest)] over 2^b - 1 steps, with an
 *                           integer zero point
 *     symmetric-full        the weight of largest magnitude gets code 0, zero gets 2^(b-1); the
 *                           scale has a sign (as Q4_0, and MatMulNBits without zero points)
 *     symmetric-restricted  the largest magnitude over 2^(b-1) - 1 steps either way; one code is
 *                           unused
 */
import { minimumOf, groupWord, nearestCode, scaleOf, f16Bits } from './group-codes.js';
import { groupQuantizer, type GroupFit, type GroupOfWeights, type Quantizer } from './quantizer.js';

/** How codes map to values; see the head of `rtn.ts`. */
export type RtnConvention = 'asymmetric' | 'symmetric-full' | 'symmetric-restricted';

/** Options of {@link rtn}. */
export interface RtnOptions {
  /** Default: 'asymmetric'. */
  readonly convention?: RtnConvention;
}

/** The scale with an integer zero point over [lowest, highest], which holds 0. */
export function zeroPointWord(lowest: number, highest: number, maxCode: number): number {
  const range = Math.fround(highest - lowest);
  if (range === 0) return 0;
  const scale = scaleOf(f16Bits(range / maxCode));
  const zeroPoint = nearestCode(-lowest, scale, 0, maxCode);
  return groupWord(scale, -zeroPoint * scale);
}

function asymmetric({ values, start, count, bits }: GroupOfWeights): number {
  let lowest = 0;
  let highest = 0;
  for (let i = start; i < start + count; i++) {
    const value = values[i] ?? 0;
    if (value < lowest) lowest = value;
    if (value > highest) highest = value;
  }
  return zeroPointWord(lowest, highest, 2 ** bits - 1);
}

/** The weight of largest magnitude; the first of equals. */
export function extremeOf({ values, start, count }: GroupOfWeights): number {
  let extreme = 0;
  for (let i = start; i < start + count; i++) {
    const value = values[i] ?? 0;
    if (Math.abs(value) > Math.abs(extreme)) extreme = value;
  }
  return extreme;
}

/** A scale around zero, whose code `middle` is 0. */
export function centredWord(scale: number, middle: number): number {
  if (scale === 0) return 0;
  const stored = scaleOf(f16Bits(scale));
  return groupWord(stored, -middle * stored);
}

/** The fits of {@link rtn}, for quantizers that choose codes another way. */
export function rtnFit(convention: RtnConvention): GroupFit {
  const name = `rtn-${convention}`;
  switch (convention) {
    case 'asymmetric':
      return { name, maxCode: (bits) => 2 ** bits - 1, fit: asymmetric };
    case 'symmetric-full':
      return {
        name,
        maxCode: (bits) => 2 ** bits - 1,
        fit: (group) => {
          const middle = 2 ** (group.bits - 1);
          return centredWord(-extremeOf(group) / middle, middle);
        },
      };
    case 'symmetric-restricted':
      return {
        name,
        maxCode: (bits) => 2 ** bits - 2,
        fit: (group) => {
          const middle = 2 ** (group.bits - 1) - 1;
          return centredWord(Math.abs(extremeOf(group)) / middle, middle);
        },
      };
  }
}

/** Round to nearest. The fastest quantizer, and the one that the GPU also has. */
export function rtn(options: RtnOptions = {}): Quantizer {
  return groupQuantizer(rtnFit(options.convention ?? 'asymmetric'));
}

/** Whether a stored pair has an integer zero point, and which; `undefined` where it has none. */
export function zeroPointOf(word: number, maxCode: number): number | undefined {
  const scale = scaleOf(word);
  const minimum = minimumOf(word);
  if (scale === 0) return minimum === 0 ? 0 : undefined;
  const zeroPoint = Math.round(-minimum / scale);
  const inRange = zeroPoint >= 0 && zeroPoint <= maxCode;
  return inRange && groupWord(scale, -zeroPoint * scale) === word >>> 0 ? zeroPoint : undefined;
}

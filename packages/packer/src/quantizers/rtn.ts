/**
 * Round to nearest: scale and minimum from the extremes of a group, in three conventions.
 *
 *     asymmetric            range [min(0, least), max(0, greatest)] over 2^b - 1 steps, with an
 *                           integer zero point
 *     symmetric-full        the weight of largest magnitude gets code 0, zero gets 2^(b-1); the
 *                           scale has a sign (as Q4_0, and MatMulNBits without zero points)
 *     symmetric-restricted  the largest magnitude over 2^(b-1) - 1 steps either way; one code is
 *                           unused
 *
 * Where pairs are compact, the zero point of the asymmetric convention is a fraction of a code, so
 * that the least weight is code 0; and symmetric-full has a positive scale and, where the extreme
 * weight is positive, its zero one code lower. With eight bits, where a scale rounded down would
 * cut off several codes' worth of the range, eight codes are left spare, and zero points are even.
 */
import type { FactorCodec } from '../factor-codec.js';
import type { CodeBits, FactorFormat } from '../matrix-layout.js';
import { builtIn } from './built-in.js';
import { nearestCode } from './group-codes.js';
import { groupQuantizer, type GroupFit, type GroupOfWeights, type Quantizer } from './quantizer.js';

/** How codes map to values; see the head of `rtn.ts`. */
export type RtnConvention = 'asymmetric' | 'symmetric-full' | 'symmetric-restricted';

/** Options of {@link rtn}. */
export interface RtnOptions {
  /** Default: 'asymmetric'. */
  readonly convention?: RtnConvention;
}

/** Codes that the range leaves out where scales are coarser than codes. */
export function spareCodes(factors: FactorFormat, bits: CodeBits): number {
  return factors === 'compact' && bits === 8 ? 8 : 0;
}

/** The scale with a zero point over [lowest, highest], which holds 0. */
function zeroPointWord(codec: FactorCodec, lowest: number, highest: number, bits: CodeBits) {
  const maxCode = 2 ** bits - 1;
  const range = Math.fround(highest - lowest);
  if (range === 0) return 0;
  if (codec.format === 'compact') {
    return codec.wordOf(range / (maxCode - spareCodes('compact', bits)), lowest);
  }
  const scale = codec.storedScale(range / maxCode);
  const zeroPoint = nearestCode(-lowest, scale, 0, maxCode);
  return codec.wordOf(scale, -zeroPoint * scale);
}

function asymmetric({ values, start, count, bits, codec }: GroupOfWeights): number {
  let lowest = 0;
  let highest = 0;
  for (let i = start; i < start + count; i++) {
    const value = values[i] ?? 0;
    if (value < lowest) lowest = value;
    if (value > highest) highest = value;
  }
  return zeroPointWord(codec, lowest, highest, bits);
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

/** The scale of `size` over the codes to one side, whose code `middle` is 0. */
function sidesWord({ codec, bits }: GroupOfWeights, size: number, middle: number): number {
  return centredWord(codec, size / (middle - spareCodes(codec.format, bits) / 2), middle);
}

/** A scale around zero, whose code `middle` is 0. */
export function centredWord(codec: FactorCodec, scale: number, middle: number): number {
  const stored = codec.storedScale(scale);
  return stored === 0 ? 0 : codec.wordOf(stored, -middle * stored);
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
          return sidesWord(group, -extremeOf(group), middle);
        },
      };
    case 'symmetric-restricted':
      return {
        name,
        maxCode: (bits) => 2 ** bits - 2,
        fit: (group) => {
          const middle = 2 ** (group.bits - 1) - 1;
          return sidesWord(group, Math.abs(extremeOf(group)), middle);
        },
      };
  }
}

/** Round to nearest. The fastest quantizer, and the one that the GPU also has. */
export function rtn(options: RtnOptions = {}): Quantizer {
  const quantizer = groupQuantizer(rtnFit(options.convention ?? 'asymmetric'));
  return builtIn({ make: 'rtn', options }, quantizer);
}

/** Whether a stored pair has an integer zero point, and which; `undefined` where it has none. */
export function zeroPointOf(codec: FactorCodec, word: number, maxCode: number): number | undefined {
  const scale = codec.scaleOf(word);
  const minimum = codec.minimumOf(word);
  if (scale === 0) return minimum === 0 ? 0 : undefined;
  const zeroPoint = Math.round(-minimum / scale);
  const inRange = zeroPoint >= 0 && zeroPoint <= maxCode;
  return inRange && codec.wordOf(scale, -zeroPoint * scale) === word >>> 0 ? zeroPoint : undefined;
}

/**
 * How scale and minimum of a group are stored, exactly, so that every machine and the GPU give the
 * same bytes. Pure.
 *
 *     f16      32 bits: f16 scale (low half), f16 minimum (high half)
 *     compact  16 bits: zero point z (7 bits, lowest) and scale (9 bits: the exponent and the first
 *              four fraction bits of a positive f16). With b-bit codes,
 *              minimum = -scale * z * 2^(b-7), which f32 holds exactly
 *
 * The zero point of a compact pair has steps of 1/8 code for 4 bits, 1/16 for 3, 1/32 for 2, and of
 * 2 codes for 8 bits. Measured on groups of 32 trained weights, with the best pair of a small
 * search, the squared error is 2.3 % (4 bits), 0.9 % (3) and 0.1 % (2) above that of two f16; one
 * more fraction bit for one less of the zero point costs 3.3 %, 1.4 % and 0.2 %.
 *
 * Rejected: scales that are multiples of one of the row or of 256 weights, as in GGUF's k-quants.
 * They save 2 to 8 bits a group and make every group depend on another load.
 */
import { f16ToF32, f32ToF16, fail } from '@vramkit/core';
import type { CodeBits, FactorFormat } from './matrix-layout.js';
import {
  f16Bits,
  groupWord,
  minimumOf as f16Minimum,
  roundEven,
  scaleOf as f16Scale,
} from './quantizers/group-codes.js';

/** Reads and writes the stored pairs of one {@link FactorFormat} and code width. */
export interface FactorCodec {
  readonly format: FactorFormat;
  /** `scale` as it will be stored; 0 stays 0, what would become 0 becomes the smallest. */
  readonly storedScale: (scale: number) => number;
  /**
   * The stored pair: the nearest scale, and the nearest minimum for that scale. A compact scale is
   * positive: a negative one is turned, so that the same values have their codes from the other
   * end; without a scale all is 0.
   * @throws VramError `unsupported` above the f16 range.
   */
  readonly wordOf: (scale: number, minimum: number) => number;
  /** The scale of a stored pair. */
  readonly scaleOf: (word: number) => number;
  /** The minimum of a stored pair. */
  readonly minimumOf: (word: number) => number;
}

/** The codec of pairs of f16. */
export const f16Codec: FactorCodec = {
  format: 'f16',
  storedScale: (scale) => f16Scale(f16Bits(scale)),
  wordOf: groupWord,
  scaleOf: f16Scale,
  minimumOf: f16Minimum,
};

/** Bits of a zero point. */
const ZERO_BITS = 7;
/** The largest zero point. */
export const MAX_ZERO = 2 ** ZERO_BITS - 1;
/** Fraction bits of f16 that a compact scale does not have. */
const DROPPED_BITS = 6;
const LARGEST_SCALE = f16ToF32(0x7bff & -(2 ** DROPPED_BITS));

/** The nearest positive number of five significant bits in the range of f16, ties to even. */
function storedScale(scale: number): number {
  if (scale === 0) return 0;
  // The exponent of the nearest f16 is that of the scale, or the scale rounds up to it here too.
  const exponent = Math.max(1, f32ToF16(scale) >> 10) - 15;
  const step = 2 ** (exponent - 4);
  const stored = exponent > 15 ? Infinity : roundEven(scale / step) * step;
  if (stored > LARGEST_SCALE) {
    fail('unsupported', `scale ${scale} is above the f16 range`, { scale });
  }
  return Math.max(stored, step);
}

function compactCodec(bits: CodeBits): FactorCodec {
  const unit = 2 ** (bits - ZERO_BITS);
  const maxCode = 2 ** bits - 1;
  const wordOf = (scale: number, minimum: number): number => {
    if (scale < 0) return wordOf(-scale, minimum + scale * maxCode);
    const stored = storedScale(scale);
    if (stored === 0) return 0;
    const zero = roundEven(Math.min(Math.max(-minimum / (stored * unit), 0), MAX_ZERO));
    return (f32ToF16(stored) >> DROPPED_BITS) * 2 ** ZERO_BITS + zero;
  };
  return {
    format: 'compact',
    storedScale: (scale) => Math.sign(scale) * storedScale(Math.abs(scale)),
    wordOf,
    scaleOf,
    minimumOf: (word) => -scaleOf(word) * (word & MAX_ZERO) * unit,
  };
}

function scaleOf(word: number): number {
  return f16ToF32((word >> ZERO_BITS) << DROPPED_BITS);
}

const COMPACT: Readonly<Record<CodeBits, FactorCodec>> = {
  2: compactCodec(2),
  3: compactCodec(3),
  4: compactCodec(4),
  8: compactCodec(8),
};

/** The codec of a format's pairs for codes of `bits`. */
export function factorCodec(format: FactorFormat, bits: CodeBits): FactorCodec {
  return format === 'f16' ? f16Codec : COMPACT[bits];
}

/** The compact scale `steps` representable numbers above that of a pair, or the last in range. */
export function nextScale(word: number, steps: number): number {
  const index = Math.max(1, (word >> ZERO_BITS) + steps);
  return Math.min(f16ToF32(index << DROPPED_BITS), LARGEST_SCALE);
}

/**
 * Scales and codes of one group, decided exactly, so that every machine and the GPU give the same
 * bytes.
 *
 * Scale and minimum are rounded to what is stored first; codes are then the nearest to what was
 * stored, never to the numbers before rounding. All ties go to even. Why f64 decides exactly: a
 * quotient of an f32 by an f16 or a small integer is either on a tie and then representable, or
 * further from it than f64 rounds.
 */
import { f16ToF32, f32ToF16, fail } from '@vramkit/core';

const INFINITY_F16 = 0x7c00;
/** Adding and subtracting it rounds an f64 below 2^51 to an integer, ties to even. */
const ROUNDER = 1.5 * 2 ** 52;

/** The integer nearest to `value`, ties to even; |value| below 2^51. */
export function roundEven(value: number): number {
  return value + ROUNDER - ROUNDER;
}

/**
 * f16 bits nearest to `value`; a magnitude that would round to zero gives the smallest one instead.
 * @throws VramError `unsupported` above the f16 range.
 */
export function f16Bits(value: number): number {
  const bits = nearestF16(value);
  if ((bits & INFINITY_F16) === INFINITY_F16) {
    fail('unsupported', `scale or minimum ${value} is above the f16 range`, { value });
  }
  return (bits & 0x7fff) === 0 && value !== 0 ? bits | 1 : bits;
}

/** Rounded once: the detour over f32 can land on a midpoint of f16 where the f64 was beside it. */
function nearestF16(value: number): number {
  const bits = f32ToF16(value);
  if ((bits & INFINITY_F16) === INFINITY_F16 || Math.fround(value) === value) return bits;
  const distance = Math.abs(f16ToF32(bits) - value);
  if (Math.abs(f16ToF32(bits - 1) - value) < distance) return bits - 1;
  return Math.abs(f16ToF32(bits + 1) - value) < distance ? bits + 1 : bits;
}

/** A scale and a minimum as a pair of f16: scale in the low half, f16 minimum in the high. */
export function groupWord(scale: number, minimum: number): number {
  const low = f16Bits(scale);
  const high = minimum === 0 ? 0 : f16Bits(minimum);
  return (low | (high << 16)) >>> 0;
}

/** The scale of a pair of f16. */
export function scaleOf(word: number): number {
  return f16ToF32(word & 0xffff);
}

/** The minimum of a pair of f16. */
export function minimumOf(word: number): number {
  return f16ToF32(word >>> 16);
}

/** The code whose stored value is nearest to `value`, in [0, maxCode]. */
export function nearestCode(
  value: number,
  scale: number,
  minimum: number,
  maxCode: number,
): number {
  if (scale === 0) return 0;
  const position = Math.fround(value - minimum) / scale;
  return roundEven(Math.min(Math.max(position, 0), maxCode));
}

/** Writes the nearest codes of a group to the same elements of `codes`. */
export function assignCodes(
  group: {
    readonly values: Float32Array;
    readonly start: number;
    readonly count: number;
    /** Reads the pair. */
    readonly codec: {
      readonly scaleOf: (word: number) => number;
      readonly minimumOf: (word: number) => number;
    };
  },
  word: number,
  maxCode: number,
  codes: Uint8Array,
): void {
  const { values, start, count, codec } = group;
  const scale = codec.scaleOf(word);
  const minimum = codec.minimumOf(word);
  if (scale === 0) {
    codes.fill(0, start, start + count);
    return;
  }
  // The body of nearestCode, written out: this is the inner loop of packing.
  for (let i = start; i < start + count; i++) {
    const position = Math.fround((values[i] ?? 0) - minimum) / scale;
    codes[i] = position <= 0 ? 0 : position >= maxCode ? maxCode : position + ROUNDER - ROUNDER;
  }
}

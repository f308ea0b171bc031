/**
 * Values of GGUF blocks of 256 weights, continuing `ggml-blocks.ts`.
 *
 * A block has one or two f16 factors and small integer scales for its groups of 16 or 32 weights:
 *
 *     Q2_K  16 bytes (scale low, min high nibble), 64 bytes of 2-bit codes, d, dmin
 *           value = d scale code - dmin min                        groups of 16
 *     Q3_K  32 bytes of third bits, 64 bytes of 2-bit codes, 12 bytes of 6-bit scales, d
 *           value = d (scale - 32) (code - 4)                      groups of 16
 *     Q4_K  d, dmin, 12 bytes of 6-bit scales and mins, 128 bytes of 4-bit codes
 *           value = d scale code - dmin min                        groups of 32
 *     Q5_K  as Q4_K, with 32 bytes of fifth bits before the codes
 *     Q6_K  128 bytes of low 4 bits, 64 bytes of high 2 bits, 16 signed scales, d
 *           value = d scale (code - 32)                            groups of 16
 *
 * Order of codes. Q2_K and Q3_K, per 128 weights: byte l of 32 holds weights l, l + 32, l + 64
 * and l + 96, two bits each from the low end. Bit k of third-bit byte m belongs to weight m + 32
 * k. Q4_K and Q5_K, per 64 weights: byte l of 32 holds weight l low and l + 32 high. Bit k of
 * fifth-bit byte l belongs to weight l + 32 k. Q6_K, per 128 weights: see `q6K`.
 */
import { f16ToF32 } from '@vramkit/core';
import type { BlockDequantizer } from './ggml-types.js';

/** f16 factor at `at`. */
function half(view: DataView, at: number): number {
  return f16ToF32(view.getUint16(at, true));
}

/**
 * The six-bit scale and min of group `group` (0 to 7) from the 12 bytes at `at`. The first four
 * groups use the low six bits of bytes 0-3 and 4-7; the last four use nibbles of bytes 8-11 with
 * the two high bits that the first eight bytes have left.
 */
export function sixBitPair(
  view: DataView,
  at: number,
  group: number,
): { scale: number; min: number } {
  if (group < 4) {
    return { scale: view.getUint8(at + group) & 63, min: view.getUint8(at + group + 4) & 63 };
  }
  const low = view.getUint8(at + group + 4);
  return {
    scale: (low & 15) | ((view.getUint8(at + group - 4) >> 6) << 4),
    min: (low >> 4) | ((view.getUint8(at + group) >> 6) << 4),
  };
}

/** The six-bit scale (0 to 63) of group `group` (0 to 15) from the 12 bytes at `at`. */
export function sixBitScale(view: DataView, at: number, group: number): number {
  const byte = view.getUint8(at + (group & 7));
  const low = group < 8 ? byte & 15 : byte >> 4;
  const high = (view.getUint8(at + 8 + (group & 3)) >> (2 * (group >> 2))) & 3;
  return low | (high << 4);
}

/** Q2_K. */
export const q2K: BlockDequantizer = (view, at, out, to) => {
  const d = half(view, at + 80);
  const dmin = half(view, at + 82);
  for (let i = 0; i < 256; i++) {
    const pair = view.getUint8(at + (i >> 4));
    const code = twoBits(view, at + 16, i);
    out[to + i] = d * (pair & 15) * code - dmin * (pair >> 4);
  }
};

/** Q3_K. */
export const q3K: BlockDequantizer = (view, at, out, to) => {
  const d = half(view, at + 108);
  for (let i = 0; i < 256; i++) {
    const scale = sixBitScale(view, at + 96, i >> 4) - 32;
    const third = (view.getUint8(at + (i & 31)) >> (i >> 5)) & 1;
    out[to + i] = d * scale * (twoBits(view, at + 32, i) + 4 * third - 4);
  }
};

/** Q4_K. */
export const q4K: BlockDequantizer = (view, at, out, to) => {
  const d = half(view, at);
  const dmin = half(view, at + 2);
  for (let i = 0; i < 256; i++) {
    const { scale, min } = sixBitPair(view, at + 4, i >> 5);
    out[to + i] = d * scale * nibble(view, at + 16, i) - dmin * min;
  }
};

/** Q5_K. */
export const q5K: BlockDequantizer = (view, at, out, to) => {
  const d = half(view, at);
  const dmin = half(view, at + 2);
  for (let i = 0; i < 256; i++) {
    const { scale, min } = sixBitPair(view, at + 4, i >> 5);
    const fifth = (view.getUint8(at + 16 + (i & 31)) >> (i >> 5)) & 1;
    out[to + i] = d * scale * (nibble(view, at + 48, i) + 16 * fifth) - dmin * min;
  }
};

/**
 * Q6_K. Per 128 weights, 64 low bytes and 32 high bytes: weights 0-63 take the low nibbles of
 * the 64 bytes, weights 64-127 the high nibbles; high byte l holds two bits each of l, l + 32, l
 * + 64, l + 96.
 */
export const q6K: BlockDequantizer = (view, at, out, to) => {
  const d = half(view, at + 208);
  for (let i = 0; i < 256; i++) {
    const part = i >> 7;
    const within = i & 127;
    const byte = view.getUint8(at + 64 * part + (within & 63));
    const low = within < 64 ? byte & 15 : byte >> 4;
    const code = low | (twoBits(view, at + 128, i) << 4);
    out[to + i] = d * view.getInt8(at + 192 + (i >> 4)) * (code - 32);
  }
};

/** Two-bit code of weight `i`: 128 weights to 32 bytes. */
function twoBits(view: DataView, at: number, i: number): number {
  return (view.getUint8(at + 32 * (i >> 7) + (i & 31)) >> (2 * ((i >> 5) & 3))) & 3;
}

/** Four-bit code of weight `i`: 64 weights to 32 bytes. */
function nibble(view: DataView, at: number, i: number): number {
  const byte = view.getUint8(at + 32 * (i >> 6) + (i & 31));
  return (i & 32) === 0 ? byte & 15 : byte >> 4;
}

/**
 * Element types: bytes on the device, host typed array, and how WGSL stores and reads them.
 *
 * 16-bit floats are stored two to a `u32` and unpacked by WGSL built-ins, so f16 and bf16 storage
 * works on every adapter; the `shader-f16` feature only adds 16-bit arithmetic.
 */
import { fail } from './assert.js';

/** Element type of a tensor. */
export type DType = 'f32' | 'f16' | 'bf16' | 'i32' | 'u32' | 'i8' | 'u8';

/** The packed element types of `@vramkit/packer`: only bytes are known to core. */
export type PackedDType = 'u2' | 'u3' | 'u4';

const BITS: Readonly<Record<DType | PackedDType, number>> = {
  f32: 32,
  f16: 16,
  bf16: 16,
  i32: 32,
  u32: 32,
  i8: 8,
  u8: 8,
  u2: 2,
  u3: 3,
  u4: 4,
};

/** Bits of one element. */
export function dtypeBits(dtype: DType | PackedDType): number {
  return BITS[dtype];
}

/**
 * Bytes of `count` elements, rounded up to whole bytes.
 * @throws VramError `invalid-argument` for an unknown dtype, or where the product is not a safe
 * integer.
 */
export function dtypeBytes(dtype: DType | PackedDType, count: number): number {
  if (!Object.hasOwn(BITS, dtype)) {
    const known = Object.keys(BITS);
    fail('invalid-argument', `unknown dtype '${dtype}'; there are ${known.join(', ')}`, { dtype });
  }
  const bits = BITS[dtype] * count;
  if (!Number.isSafeInteger(bits) || bits < 0) {
    fail('invalid-argument', `${count} elements of ${dtype} overflow`, { dtype, count });
  }
  return Math.ceil(bits / 8);
}

/** Whether `value` names an element type of this module. */
export function isDType(value: unknown): value is DType {
  return typeof value === 'string' && Object.hasOwn(BITS, value) && !/^u[234]$/.test(value);
}

const scratch = new DataView(new ArrayBuffer(4));

/** The f32 value of a bf16 bit pattern (exact). */
export function bf16ToF32(bits: number): number {
  scratch.setUint32(0, bits << 16);
  return scratch.getFloat32(0);
}

/** The bf16 bit pattern nearest to `value`, ties to even; NaN stays NaN. */
export function f32ToBf16(value: number): number {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  if (Number.isNaN(value)) return 0x7fc0;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The f32 value of an IEEE binary16 bit pattern (exact). */
export function f16ToF32(bits: number): number {
  const sign = (bits & 0x8000) << 16;
  const exponent = (bits >>> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent === 0) return (sign === 0 ? 1 : -1) * mantissa * 2 ** -24;
  const exponent32 = exponent === 31 ? 255 : exponent + 112;
  scratch.setUint32(0, (sign | (exponent32 << 23) | (mantissa << 13)) >>> 0);
  return scratch.getFloat32(0);
}

/** The f32 values of many binary16 bit patterns (exact). */
export function f16ArrayToF32(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const result = new Float32Array(bits.length);
  const words = new Uint32Array(result.buffer);
  for (let i = 0; i < bits.length; i++) {
    const half = bits[i] ?? 0;
    const exponent = half & 0x7c00;
    if (exponent === 0 || exponent === 0x7c00) result[i] = f16ToF32(half);
    else words[i] = ((half & 0x8000) << 16) | (((half & 0x7fff) << 13) + (112 << 23));
  }
  return result;
}

/** The IEEE binary16 bit pattern nearest to `value`, ties to even; overflow gives infinity. */
export function f32ToF16(value: number): number {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Below 2^-14 the result is subnormal: adding 0.5 aligns the mantissa so that the hardware
    // rounds to a multiple of 2^-24, ties to even.
    scratch.setUint32(0, magnitude);
    scratch.setFloat32(0, scratch.getFloat32(0) + 0.5);
    return sign | (scratch.getUint32(0) - 0x3f000000);
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

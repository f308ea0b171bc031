/**
 * Conversions between f32, f16 and bf16 for whole arrays.
 *
 * f16 to f32 moves the 15 low bits into place, which scales every value, subnormal ones
 * included, by 2^-112, and one exact multiplication undoes that; only infinities and NaN need a
 * branch. bf16 is the high half of f32. Narrowing rounds to nearest, ties to even, and keeps NaN
 * a NaN; f32 values above the f16 range become infinities.
 */
import { assertArgument, f32ToF16, fail } from '@vramkit/core';

/** Element type of a dense tensor. */
export type DenseType = 'F32' | 'F16' | 'BF16';

const TWO_112 = 2 ** 112;

/** f32 values of f16 bit patterns (exact), into `out` where given. */
export function f16ArrayToF32(
  bits: Uint16Array,
  out: Float32Array = new Float32Array(bits.length),
): Float32Array {
  const words = new Uint32Array(out.buffer, out.byteOffset, bits.length);
  for (let i = 0; i < bits.length; i++) {
    const half = bits[i] ?? 0;
    const sign = (half & 0x8000) << 16;
    if ((half & 0x7c00) === 0x7c00) {
      words[i] = sign | 0x7f800000 | ((half & 0x3ff) << 13);
    } else {
      words[i] = sign | ((half & 0x7fff) << 13);
      out[i] = (out[i] ?? 0) * TWO_112;
    }
  }
  return out;
}

/** f32 values of bf16 bit patterns (exact), into `out` where given. */
export function bf16ArrayToF32(
  bits: Uint16Array,
  out: Float32Array = new Float32Array(bits.length),
): Float32Array {
  const words = new Uint32Array(out.buffer, out.byteOffset, bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = (bits[i] ?? 0) << 16;
  return out;
}

/** f16 bit patterns nearest to f32 values; values above 65,504 become infinities. */
export function f32ArrayToF16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const out = new Uint16Array(values.length);
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < values.length; i++) {
    const word = words[i] ?? 0;
    const magnitude = word & 0x7fffffff;
    if (magnitude >= 0x38800000 && magnitude < 0x477ff000) {
      const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
      out[i] = ((word >>> 16) & 0x8000) | ((rounded - 0x38000000) >>> 13);
    } else {
      out[i] = f32ToF16(values[i] ?? 0);
    }
  }
  return out;
}

/** bf16 bit patterns nearest to f32 values. */
export function f32ArrayToBf16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const out = new Uint16Array(values.length);
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < values.length; i++) {
    const word = words[i] ?? 0;
    // Rounding could carry a NaN into an infinity, so its quiet bit is set instead.
    const isNaN = (word & 0x7fffffff) > 0x7f800000;
    out[i] = isNaN ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return out;
}

/**
 * f32 values of little-endian elements of `type`, into `out` where given, which has their number.
 * @throws VramError `invalid-argument` where `bytes` is not a whole number of elements, or not of
 * those of `out`.
 */
export function denseToF32(type: DenseType, bytes: Uint8Array): Float32Array<ArrayBuffer>;
/** The same, in the memory of `out`. */
export function denseToF32(type: DenseType, bytes: Uint8Array, out?: Float32Array): Float32Array;
export function denseToF32(type: DenseType, bytes: Uint8Array, out?: Float32Array): Float32Array {
  checkWhole(type, bytes);
  const count = bytes.byteLength / (type === 'F32' ? 4 : 2);
  assertArgument(
    out === undefined || out.length === count,
    `${count} elements for ${out?.length} values`,
    { elements: count, values: out?.length },
  );
  if (type === 'F32') {
    if (out === undefined) return new Float32Array(alignedBuffer(bytes));
    new Uint8Array(out.buffer, out.byteOffset, bytes.byteLength).set(bytes);
    return out;
  }
  const bits = new Uint16Array(alignedBuffer(bytes));
  return type === 'F16' ? f16ArrayToF32(bits, out) : bf16ArrayToF32(bits, out);
}

/**
 * f16 bit patterns of little-endian elements of `type`; exact for F16.
 * @throws VramError `invalid-argument` where `bytes` is not a whole number of elements.
 */
export function denseToF16(type: DenseType, bytes: Uint8Array): Uint16Array<ArrayBuffer> {
  checkWhole(type, bytes);
  if (type === 'F16') return new Uint16Array(alignedBuffer(bytes));
  return f32ArrayToF16(denseToF32(type, bytes));
}

function checkWhole(type: DenseType, bytes: Uint8Array): void {
  const elementBytes = type === 'F32' ? 4 : 2;
  if (bytes.byteLength % elementBytes === 0) return;
  fail('invalid-argument', `${bytes.byteLength} B is not a whole number of ${type} elements`, {
    type,
    sizeBytes: bytes.byteLength,
  });
}

/** A copy whose start suits any typed array; slice() of a `Buffer` would be a view. */
function alignedBuffer(bytes: Uint8Array): ArrayBuffer {
  return new Uint8Array(bytes).buffer;
}

/** The definition of what happens to gradients before an update; see gradient.wgsl.ts. */
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from '@vramkit/core';
import { SUBGROUP_GRANULE, type StateDType } from '../schedule.js';

const LARGEST = 3.4028234663852886e38;

/** The bits of `value` in 16 bits, or the value itself for f32. */
export function narrowCpu(value: number, dtype: StateDType): number {
  if (dtype === 'f32') return value;
  return dtype === 'bf16' ? f32ToBf16(value) : f32ToF16(value);
}

/** `value` rounded to the type. */
export function roundCpu(value: number, dtype: StateDType): number {
  if (dtype === 'f32') return value;
  return dtype === 'bf16' ? bf16ToF32(f32ToBf16(value)) : f16ToF32(f32ToF16(value));
}

/** Partial sums of squares, bit for bit: each operation rounds to f32 in the stated order. */
export function sumSquaresCpu(gradient: Float32Array): Float32Array {
  const partials = new Float32Array(Math.ceil(gradient.length / SUBGROUP_GRANULE));
  const f32 = Math.fround;
  for (let granule = 0; granule < partials.length; granule++) {
    const sums = new Float32Array(16);
    for (let at = 0; at < SUBGROUP_GRANULE; at++) {
      const value = gradient[granule * SUBGROUP_GRANULE + at] ?? 0;
      const square = f32(value * value);
      const finite = square < LARGEST ? square : LARGEST;
      sums[at % 16] = (sums[at % 16] ?? 0) + finite;
    }
    const lane = (i: number): number => sums[i] ?? 0;
    const column = (i: number): number =>
      f32(f32(lane(i) + lane(i + 4)) + f32(lane(i + 8) + lane(i + 12)));
    partials[granule] = f32(f32(column(0) + column(1)) + f32(column(2) + column(3)));
  }
  return partials;
}

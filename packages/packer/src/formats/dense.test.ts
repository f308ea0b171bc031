// Whole-array conversions equal the scalar definitions of core for every bit pattern that matters.
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from '@vramkit/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  bf16ArrayToF32,
  denseToF16,
  denseToF32,
  f16ArrayToF32,
  f32ArrayToBf16,
  f32ArrayToF16,
} from './dense.js';

const every = Uint16Array.from({ length: 65_536 }, (_, i) => i);

describe('widening', () => {
  it('gives the f32 value of every f16 and bf16 pattern, NaN for NaN', () => {
    const halves = f16ArrayToF32(every);
    const brains = bf16ArrayToF32(every);
    for (let bits = 0; bits < 65_536; bits++) {
      if (!Object.is(halves[bits], f16ToF32(bits))) throw new Error(`f16 ${bits}`);
      if (!Object.is(brains[bits], bf16ToF32(bits))) throw new Error(`bf16 ${bits}`);
    }
    expect(halves[0x8000]).toBe(-0);
  });

  it('writes into a part of a given array', () => {
    const out = new Float32Array(4);
    f16ArrayToF32(Uint16Array.of(0x3c00, 0x0001), out.subarray(1, 3));
    expect([...out]).toEqual([0, 1, 2 ** -24, 0]);
  });
});

describe('narrowing', () => {
  it('rounds as core does and keeps NaN a NaN', () => {
    const bits = fc.array(fc.integer({ min: 0, max: 0xffffffff }), { maxLength: 64 });
    fc.assert(
      fc.property(bits, (words) => {
        const values = new Float32Array(Uint32Array.from(words).buffer);
        const halves = f32ArrayToF16(values);
        const brains = f32ArrayToBf16(values);
        values.forEach((value, i) => {
          const half = halves[i] ?? -1;
          const brain = brains[i] ?? -1;
          if (Number.isNaN(value)) {
            expect([f16ToF32(half), bf16ToF32(brain)]).toEqual([NaN, NaN]);
          } else {
            expect([half, brain]).toEqual([f32ToF16(value), f32ToBf16(value)]);
          }
        });
      }),
      { seed: 7, numRuns: 500 },
    );
  });

  it('is exact for values that fit, and saturates to infinity', () => {
    const finite = every.filter((bits) => (bits & 0x7c00) !== 0x7c00);
    expect(f32ArrayToF16(f16ArrayToF32(finite))).toEqual(finite);
    expect([...f32ArrayToF16(Float32Array.of(65_519, 65_520, -1e9))]).toEqual([
      0x7bff, 0x7c00, 0xfc00,
    ]);
  });
});

describe('dense tensors', () => {
  it('convert from each type at any byte offset', () => {
    const values = Float32Array.of(1, -2.5, 0.125);
    const stored = {
      F32: new Uint8Array(values.buffer),
      F16: new Uint8Array(f32ArrayToF16(values).buffer),
      BF16: new Uint8Array(f32ArrayToBf16(values).buffer),
    };
    for (const type of ['F32', 'F16', 'BF16'] as const) {
      const shifted = new Uint8Array(stored[type].byteLength + 1);
      shifted.set(stored[type], 1);
      expect(denseToF32(type, shifted.subarray(1))).toEqual(values);
      expect(denseToF16(type, shifted.subarray(1))).toEqual(f32ArrayToF16(values));
      expect(() => denseToF16(type, shifted)).toThrow(/is not a whole number of/);
    }
  });
});

// Compact factors: what they hold exactly, that the nearest pair is chosen, and what they cannot.
import { f16ToF32 } from '@vramkit/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { factorCodec, MAX_ZERO, nextScale } from './factor-codec.js';
import type { CodeBits } from './matrix-layout.js';

const BITS: readonly CodeBits[] = [2, 3, 4, 8];
/** Scales of all compact words, rising. */
const SCALES = Array.from({ length: 0x1ee }, (_, i) => f16ToF32((i + 1) << 6));

describe.each(BITS)('compact factors of %i-bit codes', (bits) => {
  const codec = factorCodec('compact', bits);
  const unit = 2 ** (bits - 7);

  it('are read back from every word, and f32 holds both exactly', () => {
    for (let word = 128; word < 0x1ef << 7; word++) {
      const scale = codec.scaleOf(word);
      const minimum = codec.minimumOf(word);
      if (codec.wordOf(scale, minimum) !== word) throw new Error(`word ${word} changed`);
      if (Math.fround(minimum) !== minimum || f16ToF32((word >> 7) << 6) !== scale) {
        throw new Error(`word ${word} is not exact`);
      }
    }
    expect(codec.scaleOf(0x1ee << 7)).toBe(SCALES.at(-1));
    expect([codec.wordOf(0, 5), codec.scaleOf(0), codec.storedScale(0)]).toEqual([0, 0, 0]);
  });

  it('are the nearest scale, ties to even, and the nearest zero point for it', () => {
    fc.assert(
      fc.property(
        fc.nat({ max: SCALES.length - 2 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: -1, max: 2, noNaN: true }),
        (index, part, place) => {
          const [low = 0, high = 0] = SCALES.slice(index, index + 2);
          const value = low + part * (high - low);
          const even = (index + 1) % 2 === 0 ? low : high;
          const nearest =
            value - low < high - value ? low : value - low > high - value ? high : even;
          expect(codec.storedScale(value)).toBe(nearest);
          expect(codec.storedScale(-value)).toBe(-nearest);
          const minimum = -place * value * 2 ** bits;
          const found = codec.minimumOf(codec.wordOf(value, minimum));
          const bound = Math.min(Math.max(minimum, -MAX_ZERO * unit * nearest), 0);
          expect(Math.abs(found - bound)).toBeLessThanOrEqual(0.5 * unit * nearest);
        },
      ),
      { seed: 11 },
    );
  });

  it('turn a negative scale: the same values, codes from the other end', () => {
    const maxCode = 2 ** bits - 1;
    const zero = 2 ** (bits - 1);
    const word = codec.wordOf(-0.5, 0.5 * zero);
    expect(codec.scaleOf(word)).toBe(0.5);
    // Zero points of 8 bits are even.
    const last = codec.minimumOf(word) + 0.5 * maxCode;
    expect(Math.abs(last - 0.5 * zero)).toBeLessThanOrEqual(bits === 8 ? 0.5 : 0);
  });

  it('refuse scales above the f16 range, and step over scales up to its ends', () => {
    const unsupported = expect.objectContaining({ code: 'unsupported' });
    expect(() => codec.wordOf(70000, 0)).toThrow(unsupported);
    expect(() => codec.wordOf(65000, 0)).toThrow(unsupported);
    expect(() => codec.storedScale(1e9)).toThrow(unsupported);
    expect(codec.storedScale(1e-12)).toBe(2 ** -18);
    const word = codec.wordOf(1, -3);
    expect([-1, 0, 1].map((steps) => nextScale(word, steps))).toEqual([0.96875, 1, 1.0625]);
    expect(nextScale(codec.wordOf(2 ** -18, 0), -1)).toBe(2 ** -18);
    expect(nextScale(codec.wordOf(63488, 0), 1)).toBe(63488);
  });
});

// Converted blocks have the values of the original: equal where the type is exact, within half a
// unit of f16 of each product elsewhere; codes are kept; bad factors are refused by place.
import { f16ToF32 } from '@vramkit/core';
import fc from 'fast-check';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { affineFormat, affineValues, toAffine, type QuantizedType } from './affine.js';
import { dequantize } from './ggml-blocks.js';
import { GGML_TYPES, ggmlBlock } from './ggml-types.js';

const TYPES = GGML_TYPES.filter((type): type is QuantizedType => type.startsWith('Q'));

/** Byte offsets of the f16 factors in a block. */
const FACTORS: Readonly<Record<QuantizedType, readonly number[]>> = {
  Q4_0: [0],
  Q4_1: [0, 2],
  Q5_0: [0],
  Q5_1: [0, 2],
  Q8_0: [0],
  Q2_K: [80, 82],
  Q3_K: [108],
  Q4_K: [0, 2],
  Q5_K: [0, 2],
  Q6_K: [208],
};

/** Random blocks whose factors are below 4, subnormal ones included, so that products fit f16. */
function blocks(type: QuantizedType, count: number) {
  const { bytes } = ggmlBlock(type);
  return fc
    .uint8Array({ minLength: count * bytes, maxLength: count * bytes })
    .map((random) => withFactors(type, random, (high) => high & 0xbf & ~0x04));
}

function withFactors(
  type: QuantizedType,
  bytes: Uint8Array,
  high: (byte: number) => number,
): Uint8Array {
  const copy = bytes.slice();
  for (let block = 0; block < copy.length; block += ggmlBlock(type).bytes) {
    for (const offset of FACTORS[type]) {
      copy[block + offset + 1] = high(copy[block + offset + 1] ?? 0);
    }
  }
  return copy;
}

/**
 * Most that one value may be off: half a unit in the last place of f16 of scale times code, and
 * min.
 */
function bound(matrix: ReturnType<typeof toAffine>, index: number): number {
  const pair = matrix.scales[Math.floor(index / matrix.groupSize)] ?? 0;
  const largest = matrix.bits === 4 ? 15 : 63;
  const half = (bits: number) => Math.abs(f16ToF32(bits)) * 2 ** -11 + 2 ** -25;
  // A min of -2^p scales is rounded with its scale, so twice the code's range covers it.
  return largest * 2 * half(pair & 0xffff) + half(pair >>> 16);
}

describe('toAffine', () => {
  it.each(TYPES)('keeps the values of %s', (type) => {
    const { weights } = ggmlBlock(type);
    const { bits, groupSize, exact } = affineFormat(type);
    fc.assert(
      fc.property(blocks(type, 6), (bytes) => {
        const matrix = toAffine(type, bytes, 3, 2 * weights);
        expect(matrix).toMatchObject({ rows: 3, columns: 2 * weights, bits, groupSize });
        expect(matrix.codes).toHaveLength((6 * weights * bits) / 32);
        expect(matrix.scales).toHaveLength((6 * weights) / groupSize);
        const values = affineValues(matrix);
        dequantize(type, bytes).forEach((expected, i) => {
          const error = Math.abs((values[i] ?? NaN) - expected);
          if (!(error <= (exact ? 0 : bound(matrix, i)))) {
            throw new Error(`weight ${i}: ${values[i]} for ${expected}`);
          }
        });
      }),
      { seed: 11, numRuns: 40 },
    );
  });

  it('converts the recorded blocks of llama.cpp whose scales fit f16', () => {
    const { types } = JSON.parse(
      readFileSync(new URL('./ggml-blocks.golden.json', import.meta.url), 'utf8'),
    );
    for (const type of ['Q4_1', 'Q5_1'] as const) {
      const bytes = Uint8Array.from(Buffer.from(types[type].bytes, 'base64'));
      const values = new Float32Array(
        Uint8Array.from(Buffer.from(types[type].values, 'base64')).buffer,
      );
      expect(affineValues(toAffine(type, bytes, 1, values.length))).toEqual(values);
    }
  });

  it('is the concatenation of its row ranges, at any byte offset', () => {
    for (const type of TYPES) {
      const { weights, bytes: blockBytes } = ggmlBlock(type);
      const [sample] = fc.sample(blocks(type, 4), { seed: 3, numRuns: 1 });
      if (sample === undefined) throw new Error('no sample');
      const whole = toAffine(type, sample, 4, weights);
      const shifted = new Uint8Array(sample.length + 1);
      shifted.set(sample, 1);
      const parts = [0, 1, 2, 3].map((row) => {
        const range = shifted.subarray(1 + row * blockBytes, 1 + (row + 1) * blockBytes);
        return toAffine(type, range, 1, weights);
      });
      expect(parts.flatMap((part) => [...part.codes])).toEqual([...whole.codes]);
      expect(parts.flatMap((part) => [...part.scales])).toEqual([...whole.scales]);
    }
  });

  it('packs codes low-first along a row', () => {
    // Q4_1 with scale 1 and min 0: the values are the codes, 0 to 15 and 15 to 0.
    const nibbles = Array.from({ length: 16 }, (_, j) => j | ((15 - j) << 4));
    const four = toAffine('Q4_1', Uint8Array.of(0, 0x3c, 0, 0, ...nibbles), 1, 32);
    expect([...four.codes]).toEqual([0x76543210, 0xfedcba98, 0x89abcdef, 0x01234567]);
    expect([...four.scales]).toEqual([0x3c00]);
    const codes = Array.from({ length: 32 }, (_, j) => (j - 16) & 0xff);
    const eight = toAffine('Q8_0', Uint8Array.of(0, 0x3c, ...codes), 1, 32);
    expect(eight.codes[0]).toBe(0x73727170);
    expect(f16ToF32((eight.scales[0] ?? 0) >>> 16)).toBe(-128);
  });

  it('keeps 0 at 0 for the centred types', () => {
    for (const type of ['Q3_K', 'Q6_K'] as const) {
      const [bytes] = fc.sample(blocks(type, 20), { seed: 5, numRuns: 1 });
      if (bytes === undefined) throw new Error('no sample');
      const values = affineValues(toAffine(type, bytes, 20, 256));
      const expected = dequantize(type, bytes);
      const zeros = [...expected.keys()].filter((i) => expected[i] === 0);
      expect(zeros.length).toBeGreaterThan(0);
      for (const i of zeros) expect(Math.abs(values[i] ?? NaN)).toBe(0);
    }
  });
});

describe('toAffine refuses', () => {
  it.each(TYPES)('a factor of %s that is not finite, by row and column', (type) => {
    const { weights, bytes: blockBytes } = ggmlBlock(type);
    for (const offset of FACTORS[type]) {
      const bytes = new Uint8Array(6 * blockBytes);
      bytes[5 * blockBytes + offset + 1] = 0x7c;
      expect(() => toAffine(type, bytes, 3, 2 * weights)).toThrow(
        new RegExp(`corrupt-data: factor \\d+ of ${type} is not finite, row 2 column ${weights}`),
      );
    }
  });

  it.each(TYPES.filter((type) => !type.endsWith('_1')))('a scale of %s above f16', (type) => {
    const { weights, bytes: blockBytes } = ggmlBlock(type);
    const bytes = withFactors(type, new Uint8Array(blockBytes).fill(0x55), () => 0x7b);
    expect(() => toAffine(type, bytes, 1, weights)).toThrow(
      /unsupported: scale .* f16 range, row 0/,
    );
  });

  it('bytes that do not fit the shape', () => {
    expect(() => toAffine('Q4_0', new Uint8Array(18), 1, 16)).toThrow(/18 B is not 1 x 16 weights/);
    expect(() => toAffine('Q4_0', new Uint8Array(18), 2, 32)).toThrow(/18 B is not 2 x 32 weights/);
    expect(toAffine('Q6_K', new Uint8Array(0), 0, 256).codes).toHaveLength(0);
  });
});

// Packing is the inverse of reading, for every width and group, and 3 bits take exactly 3 bits.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { packRows, unpackRows } from './code-words.js';
import { affineMatrixFormat, bitsPerWeight, matrixLayout } from './matrix-layout.js';

const CASES = ([2, 3, 4, 8] as const).flatMap((bits) =>
  [16, 32, 64, 192].map((groupSize) => ({ bits, groupSize })),
);

it.each(CASES)('packs $bits bits in groups of $groupSize and reads them back', (storage) => {
  const { bits, groupSize } = storage;
  const format = affineMatrixFormat(bits);
  const layout = matrixLayout({ rows: 3, columns: 192, format, groupSize });
  const size = 3 * 192;
  const groups = size / groupSize;
  expect(bitsPerWeight(layout)).toBe(bits + 32 / groupSize);
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: size, maxLength: size, max: 2 ** bits - 1 }),
      fc.uint32Array({ minLength: groups, maxLength: groups }),
      (codes, factors) => {
        const words = packRows(layout, { codes, factors });
        expect(words.codes).toHaveLength(3 * layout.codeWordsPerRow);
        expect(words.scales).toHaveLength(3 * layout.scaleWordsPerRow);
        expect(unpackRows(layout, words)).toEqual({ codes, factors });
      },
    ),
    { seed: 5, numRuns: 30 },
  );
  const short = { codes: new Uint8Array(5), factors: new Uint32Array(1) };
  expect(() => packRows(layout, short)).toThrow(/are not rows of 192/);
});

it('checklist 34: the words of 3-bit codes are those of a 2-bit matrix', () => {
  const codes = Uint8Array.from({ length: 64 }, (_, i) => (i * 5) % 8);
  const factors = Uint32Array.of(7, 8);
  const shape = { rows: 1, columns: 64 } as const;
  const words = packRows(matrixLayout({ ...shape, format: 'affine3' }), { codes, factors });
  const upper = { codes: words.codes, scales: factors };
  const read = unpackRows(matrixLayout({ ...shape, format: 'affine2' }), upper);
  expect(read.codes).toEqual(codes.map((code) => code >> 1));
});

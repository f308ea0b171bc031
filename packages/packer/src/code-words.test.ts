// Packing is the inverse of reading, for every width, and three planes take exactly three bits.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { packCodes, unpackCodes } from './code-words.js';
import { affineMatrixFormat, matrixLayout } from './matrix-layout.js';

it.each([2, 3, 4, 8] as const)('packs %i-bit codes and reads them back', (bits) => {
  const shape = { rows: 3, columns: 96, format: affineMatrixFormat(bits) };
  const layout = matrixLayout(shape);
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 288, maxLength: 288, max: 2 ** bits - 1 }), (codes) => {
      const words = packCodes(bits, codes);
      expect(words).toHaveLength((288 * bits) / 32);
      expect(unpackCodes(layout, words)).toEqual(codes);
    }),
    { seed: 5 },
  );
  expect(() => packCodes(bits, new Uint8Array(3))).toThrow(/whole words/);
});

it('checklist 34: the upper plane of 3-bit codes is a 2-bit matrix', () => {
  const codes = Uint8Array.from({ length: 64 }, (_, i) => (i * 5) % 8);
  const words = packCodes(3, codes);
  const upper = words.filter((_, i) => i % 3 !== 2);
  const layout = matrixLayout({ rows: 1, columns: 64, format: 'affine2' });
  expect(unpackCodes(layout, upper)).toEqual(codes.map((code) => code >> 1));
});

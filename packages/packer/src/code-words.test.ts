// Packing is the inverse of reading, for every width and group, and 3 bits take exactly 3 bits.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { packRows, unpackRows } from './code-words.js';
import { affineMatrixFormat, bitsPerWeight, matrixLayout } from './matrix-layout.js';

const CASES = ([2, 3, 4, 8] as const).flatMap((bits) =>
  [16, 32, 64, 192].flatMap((groupSize) =>
    (['f16', 'compact'] as const).map((factors) => ({ bits, groupSize, factors })),
  ),
);

it.each(CASES)('packs $bits bits, $groupSize a group, $factors, and reads them back', (storage) => {
  const { bits, groupSize, factors: stored } = storage;
  const format = affineMatrixFormat(bits);
  const layout = matrixLayout({ rows: 3, columns: 192, format, groupSize, factors: stored });
  const size = 3 * 192;
  const groups = size / groupSize;
  const perRow = groups / 3;
  // An odd number of compact factors is filled up to a word.
  const factorWords = stored === 'f16' ? perRow : (perRow + (perRow % 2)) / 2;
  expect(bitsPerWeight(layout)).toBeCloseTo(bits + (32 * factorWords) / 192, 12);
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: size, maxLength: size, max: 2 ** bits - 1 }),
      fc.uint32Array({
        minLength: groups,
        maxLength: groups,
        max: stored === 'f16' ? 2 ** 32 - 1 : 2 ** 16 - 1,
      }),
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

it('words of compact factors: two groups share one, 3-bit planes follow it', () => {
  const codes = new Uint8Array(96).fill(7);
  const factors = Uint32Array.of(0x1111, 0x2222, 0x3333);
  const shape = { rows: 1, columns: 96, factors: 'compact' } as const;
  const four = packRows(matrixLayout({ ...shape, format: 'affine4' }), { codes, factors });
  expect([...four.scales]).toEqual([0x22221111, 0x3333]);
  const three = packRows(matrixLayout({ ...shape, format: 'affine3' }), { codes, factors });
  const plane = 0xffffffff;
  expect([...three.scales]).toEqual([0x22221111, plane, plane, 0x3333, plane]);
  const pair = { codes, factors: Uint32Array.of(1, 0x10000, 1) };
  expect(() => packRows(matrixLayout({ ...shape, format: 'affine4' }), pair)).toThrow(/16 bits/);
  expect(() => matrixLayout({ rows: 1, columns: 96, format: 'f16', factors: 'compact' })).toThrow(
    expect.objectContaining({ code: 'invalid-argument' }),
  );
});

// Quantizers: conventions by definition, codes nearest to what is stored, hard groups, the better
// ones better, any split into rows the same bytes. Names carry the number of the checklist's point.
import { f16ToF32 } from '@vramkit/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { factorsAt, unpackRows } from '../code-words.js';
import { f16Codec } from '../factor-codec.js';
import { compareLogits, compareWeights, errorMetrics } from '../error-metrics.js';
import { matrixValues } from '../kernels/host-matrix.js';
import { sampleFloats } from '../kernels/sample-matrix.js';
import { bitsPerWeight, type CodeBits } from '../matrix-layout.js';
import { quantizeMatrix, type GroupChoice } from '../quantize-matrix.js';
import { seededRandom } from '../scorers/seeded-random.js';
import { gptq } from './gptq.js';
import { f16Bits, minimumOf, roundEven, scaleOf } from './group-codes.js';
import { hqq } from './hqq.js';
import { activationMoments, columnPower, outputErrorOf } from './moments.js';
import { optRtn } from './opt-rtn.js';
import type { Quantizer } from './quantizer.js';
import { rtn, zeroPointOf } from './rtn.js';
import { signRound } from './sign-round.js';

const BITS: readonly CodeBits[] = [2, 3, 4, 8];
const GROUP_WISE: readonly Quantizer[] = [
  rtn(),
  rtn({ convention: 'symmetric-full' }),
  rtn({ convention: 'symmetric-restricted' }),
  optRtn(),
  optRtn({ convention: 'symmetric' }),
  hqq(),
];
const ALL = [...GROUP_WISE, gptq(), gptq({ order: 'power' }), signRound({ iterations: 20 })];

/** About normal: the sum of four uniform numbers. */
function normals(count: number, seed: number): Float32Array {
  const next = seededRandom(seed);
  const sum = (): number => next() + next() + next() + next() - 2;
  return Float32Array.from({ length: count }, () => 0.05 * sum());
}

/** Activations whose columns depend on each other, as those of a model do. */
function correlated(samples: number, columns: number, seed: number): Float32Array {
  const own = sampleFloats(samples * columns, seed);
  const shared = sampleFloats(samples * 4, seed + 1);
  return own.map((value, i) => {
    const sample = Math.floor(i / columns);
    const common = shared[sample * 4 + (i % 4)] ?? 0;
    return (0.4 * value + common) * (1 + (i % 7));
  });
}

const columns = 64;
const moments = activationMoments(correlated(200, columns, 5), columns);

function quantize(values: Float32Array, bits: CodeBits, quantizer: Quantizer) {
  const rows = values.length / columns;
  return quantizeMatrix(values, { name: 'w', rows, columns, bits, quantizer, moments });
}

describe('f16 of a f64', () => {
  it('is the nearest, ties to even, at every scale', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 0x7bfe }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (bits, part) => {
          const [low, high] = [f16ToF32(bits), f16ToF32(bits + 1)];
          const value = low + part * (high - low);
          const expected = part < 0.5 ? bits : part > 0.5 ? bits + 1 : bits + (bits % 2);
          expect(f16Bits(value)).toBe(value === low ? bits : value === high ? bits + 1 : expected);
        },
      ),
      { seed: 3 },
    );
  });

  it('decides beside a midpoint that f32 cannot tell from it', () => {
    const midpoint = (f16ToF32(0x3c01) + f16ToF32(0x3c02)) / 2;
    expect(f16Bits(midpoint * (1 - 2 ** -40))).toBe(0x3c01);
    expect(f16Bits(midpoint * (1 + 2 ** -40))).toBe(0x3c02);
    expect([0.5, 1.5, 2.5, 3.4].map(roundEven)).toEqual([0, 2, 2, 3]);
  });
});

describe.each(ALL)('$name', (quantizer) => {
  it.each(BITS)('checklist 18: %i-bit codes belong to the stored scales', (bits) => {
    const values = normals(4 * columns, 17);
    const matrix = quantize(values, bits, quantizer);
    const { codes } = unpackRows(matrix.layout, matrix);
    const stored = matrixValues(matrix);
    const moved = quantizer.needs === 'moments';
    values.forEach((value, i) => {
      const word = factorsAt(matrix.layout, matrix, Math.floor(i / columns), i % columns);
      const scale = Math.abs(scaleOf(word));
      expect(stored[i]).toBe(Math.fround(scaleOf(word) * (codes[i] ?? 0) + minimumOf(word)));
      const [lowest, highest] = [
        minimumOf(word),
        minimumOf(word) + scaleOf(word) * (2 ** bits - 1),
      ];
      const inside = value >= Math.min(lowest, highest) && value <= Math.max(lowest, highest);
      // One code of symmetric-restricted is unused: the end of its range is a scale nearer.
      const bound = inside ? 0.5 * scale * (1 + 1e-6) : Infinity;
      if (!moved && !quantizer.name.endsWith('restricted')) {
        expect(Math.abs((stored[i] ?? NaN) - value)).toBeLessThanOrEqual(bound);
      }
    });
  });

  it('checklist 22: the same bytes again, and for any split into rows', () => {
    const values = normals(6 * columns, 19);
    const whole = quantize(values, 3, quantizer);
    const parts = [0, 1, 4].map((row, i, starts) =>
      quantize(values.slice(row * columns, (starts[i + 1] ?? 6) * columns), 3, quantizer),
    );
    expect([...parts.flatMap((part) => [...part.codes])]).toEqual([...whole.codes]);
    expect([...parts.flatMap((part) => [...part.scales])]).toEqual([...whole.scales]);
    expect(quantize(values, 3, quantizer)).toEqual(whole);
  });

  it('checklist 19: all-zero, constant, single-outlier and subnormal groups', () => {
    for (const bits of BITS) {
      const zero = quantize(new Float32Array(columns), bits, quantizer);
      expect(matrixValues(zero)).toEqual(new Float32Array(columns));
      const constant = new Float32Array(columns).fill(0.25);
      const kept = matrixValues(quantize(constant, bits, quantizer));
      for (const value of kept) expect(value).toBeCloseTo(0.25, 2);
      const outlier = new Float32Array(columns);
      outlier[5] = 1;
      const found = matrixValues(quantize(outlier, bits, quantizer));
      expect(found.every(Number.isFinite)).toBe(true);
      expect(found.indexOf(Math.max(...found))).toBe(5);
      const tiny = new Float32Array(columns).map((_, i) => (i % 2 === 0 ? 1 : -1) * 1e-9);
      for (const value of matrixValues(quantize(tiny, bits, quantizer))) {
        expect(Math.abs(value)).toBeLessThan(2 ** -15);
      }
    }
  });

  it('checklist 19: refuses a scale above the f16 range by name', () => {
    const values = new Float32Array(columns).map((_, i) => (i % 2 === 0 ? 1 : -1) * 2e7);
    expect(() => quantize(values, 4, quantizer)).toThrow(
      expect.objectContaining({ code: 'unsupported' }),
    );
  });
});

describe('checklist 2: conventions', () => {
  const values = Float32Array.from({ length: 32 }, (_, i) => (i === 3 ? -4 : i === 9 ? 3.5 : 0.5));
  const word = (quantizer: Quantizer, bits: CodeBits): number =>
    quantizer.quantize({ values, rows: 1, columns: 32, bits, groupSize: 32 }).factors[0] ?? 0;

  it('asymmetric has an integer zero point over the range with 0', () => {
    const pair = word(rtn(), 4);
    expect(scaleOf(pair)).toBe(0.5);
    expect(zeroPointOf(f16Codec, pair, 15)).toBe(8);
  });

  it('symmetric-full gives the extreme code 0, by the sign of the scale', () => {
    const pair = word(rtn({ convention: 'symmetric-full' }), 4);
    expect([scaleOf(pair), minimumOf(pair)]).toEqual([0.5, -4]);
    const flipped = values.map((value) => -value);
    const input = { values: flipped, rows: 1, columns: 32, bits: 4, groupSize: 32 } as const;
    const { factors } = rtn({ convention: 'symmetric-full' }).quantize(input);
    expect([scaleOf(factors[0] ?? 0), minimumOf(factors[0] ?? 0)]).toEqual([-0.5, 4]);
  });

  it('symmetric-restricted leaves the last code unused', () => {
    const restricted = rtn({ convention: 'symmetric-restricted' });
    const { factors, codes } = restricted.quantize({
      values,
      rows: 1,
      columns: 32,
      bits: 4,
      groupSize: 32,
    });
    expect(scaleOf(factors[0] ?? 0)).toBeCloseTo(4 / 7, 3);
    expect(Math.max(...codes)).toBeLessThanOrEqual(14);
    expect(codes[3]).toBe(0);
  });

  it('a float zero point is a minimum that is no multiple of the scale', () => {
    const pair = word(hqq(), 2);
    expect(zeroPointOf(f16Codec, pair, 3)).toBeUndefined();
  });
});

describe('checklist 3: widths and groups', () => {
  it.each<[GroupChoice, CodeBits, number]>([
    [32, 2, 3],
    [32, 3, 4],
    [64, 2, 2.5],
    [64, 4, 4.5],
    [128, 2, 2.25],
    [128, 3, 3.25],
    [128, 4, 4.25],
    ['row', 3, 3.125],
  ])('groups of %s at %i bits cost %f bits a weight', (groupSize, bits, expected) => {
    const values = normals(2 * 256, 23);
    const matrix = quantizeMatrix(values, { name: 'w', rows: 2, columns: 256, bits, groupSize });
    expect(bitsPerWeight(matrix.layout)).toBe(expected);
    expect((32 * (matrix.codes.length + matrix.scales.length)) / values.length).toBe(expected);
  });
});

describe('checklist 21: the searching ones beat round to nearest', () => {
  const values = normals(64 * columns, 29);
  const mse = (quantizer: Quantizer, bits: CodeBits): number =>
    errorMetrics(quantize(values, bits, quantizer), values).mse;

  it.each([2, 3, 4] as const)('optRtn and hqq at %i bits', (bits) => {
    const plain = mse(rtn(), bits);
    expect(mse(optRtn(), bits)).toBeLessThan(0.95 * plain);
    expect(mse(hqq(), bits)).toBeLessThan(plain);
    const symmetric = mse(rtn({ convention: 'symmetric-full' }), bits);
    expect(mse(optRtn({ convention: 'symmetric' }), bits)).toBeLessThan(symmetric);
  });

  it.each([2, 3, 4] as const)('optRtn by magnitude keeps large weights at %i bits', (bits) => {
    const weighted = (quantizer: Quantizer): number => {
      const stored = matrixValues(quantize(values, bits, quantizer));
      return values.reduce(
        (sum, value, i) => sum + Math.abs(value) * ((stored[i] ?? 0) - value) ** 2,
        0,
      );
    };
    const byMagnitude = optRtn({ emphasis: 'magnitude' });
    expect(weighted(byMagnitude)).toBeLessThan(0.97 * weighted(optRtn()));
    expect(mse(byMagnitude, bits)).toBeGreaterThan(mse(optRtn(), bits));
    expect(() => optRtn({ convention: 'symmetric', emphasis: 'magnitude' })).toThrow(
      /invalid-argument/,
    );
  });

  it.each([2, 3, 4] as const)('gptq and signRound at %i bits, by output error', (bits) => {
    const outputError = (quantizer: Quantizer): number => {
      const stored = matrixValues(quantize(values, bits, quantizer));
      const difference = Float64Array.from(values, (value, i) => (stored[i] ?? 0) - value);
      return outputErrorOf(difference, moments, columns);
    };
    const plain = outputError(rtn());
    expect(outputError(gptq())).toBeLessThan(0.7 * plain);
    expect(outputError(signRound({ iterations: 60 }))).toBeLessThan(0.7 * plain);
  });

  it.each([2, 3, 4] as const)('gptq at %i bits, by columns of most power first', (bits) => {
    // A few columns carry most of the power, and lie last.
    const uneven = correlated(200, columns, 7).map((value, i) => value * 1.1 ** (i % columns));
    const own = activationMoments(uneven, columns);
    const outputError = (quantizer: Quantizer): number => {
      const rows = values.length / columns;
      const shape = { name: 'w', rows, columns, bits, quantizer, moments: own } as const;
      const stored = matrixValues(quantizeMatrix(values, shape));
      return outputErrorOf(
        Float64Array.from(values, (value, i) => (stored[i] ?? 0) - value),
        own,
        columns,
      );
    };
    expect(outputError(gptq({ order: 'power' }))).toBeLessThan(0.5 * outputError(gptq()));
  });

  it('checklist 16: importance moves the error to columns that count less', () => {
    const importance = Float32Array.from({ length: columns }, (_, i) => (i % 8 === 0 ? 100 : 1));
    const options = { name: 'w', rows: 64, columns, bits: 2, quantizer: optRtn() } as const;
    const weighted = quantizeMatrix(values, { ...options, importance });
    const plain = quantizeMatrix(values, options);
    const of = (matrix: typeof plain): number =>
      errorMetrics(matrix, values, importance).weightedMse;
    expect(of(weighted)).toBeLessThan(0.8 * of(plain));
  });
});

describe('checklist 20: errors of what is stored', () => {
  it('are those of the definition', () => {
    const truth = Float32Array.of(1, -2, 0, 4, 0, 0);
    const stored = Float32Array.of(1, -1, 0, 4, 0, 2);
    const importance = Float32Array.of(1, 3, 0);
    const found = compareWeights(stored, truth, { columns: 3, importance });
    expect(found.mse).toBeCloseTo(5 / 6, 12);
    expect(found.weightedMse).toBeCloseTo(3 / 8, 12);
    expect(found.relativeError).toBeCloseTo(Math.sqrt(5 / 21), 12);
    expect(found.cosine).toBeCloseTo(19 / Math.sqrt(21 * 22), 12);
    expect(found.maxError).toBe(2);
    expect(found.sqnrDb).toBeCloseTo(10 * Math.log10(21 / 5), 12);
    const exact = compareWeights(truth, truth, { columns: 3 });
    expect(exact).toMatchObject({ mse: 0, relativeError: 0, cosine: 1, sqnrDb: Infinity });
  });

  it('are taken from the stored words', () => {
    const values = normals(4 * columns, 37);
    const matrix = quantize(values, 3, rtn());
    const direct = compareWeights(matrixValues(matrix), values, { columns });
    expect(errorMetrics(matrix, values)).toEqual(direct);
    expect(direct.mse).toBeGreaterThan(0);
  });

  it('divergence of logits: by hand, zero for a shift, larger for fewer bits', () => {
    const truth = Float32Array.of(0, Math.log(3), 5, 5);
    const other = Float32Array.of(0, 0, -1, -1);
    // (1/4, 3/4) against (1/2, 1/2) in the first row, the same halves in the second.
    const kl = 0.25 * Math.log(0.5) + 0.75 * Math.log(1.5);
    const found = compareLogits(other, truth, 2);
    expect(found.meanKl).toBeCloseTo(kl / 2, 6);
    expect(found.maxKl).toBeCloseTo(kl, 6);
    expect(found.sameTop).toBe(0.5);
    const rows = normals(8 * 64, 41).map((value) => 60 * value);
    const shifted = compareLogits(
      rows.map((value) => value + 3),
      rows,
      64,
    );
    expect(shifted.maxKl).toBeLessThan(1e-6);
    const divergence = (bits: CodeBits): number =>
      compareLogits(matrixValues(quantize(rows, bits, rtn())), rows, 64).meanKl;
    expect(divergence(2)).toBeGreaterThan(2 * divergence(4));
    const invalid = expect.objectContaining({ code: 'invalid-argument' });
    expect(() => compareLogits(rows, rows, 63)).toThrow(invalid);
    expect(() => compareLogits(Float32Array.of(NaN, 1), Float32Array.of(1, 1), 2)).toThrow(invalid);
  });
});

describe('checklist 27 to 29: bad input', () => {
  const options = { name: 'blk.0.w', rows: 1, columns: 96, bits: 4 } as const;

  it('27: names the first weight that is not finite, and how many there are', () => {
    const values = new Float32Array(96);
    values[7] = NaN;
    values[50] = -Infinity;
    expect(() => quantizeMatrix(values, options)).toThrow(
      expect.objectContaining({
        code: 'corrupt-data',
        context: { tensor: 'blk.0.w', count: 2, index: 7 },
      }),
    );
    const zeroed = quantizeMatrix(values, { ...options, nonFinite: 'zero' });
    expect(matrixValues(zeroed)).toEqual(new Float32Array(96));
  });

  it('27 and 31: refuses importance that is not finite or of another length', () => {
    const values = new Float32Array(96);
    const bad = new Float32Array(96).fill(NaN, 3, 4);
    const invalid = expect.objectContaining({ code: 'invalid-argument' });
    expect(() => quantizeMatrix(values, { ...options, importance: bad })).toThrow(invalid);
    const short = new Float32Array(95);
    expect(() => quantizeMatrix(values, { ...options, importance: short })).toThrow(invalid);
    expect(() => activationMoments(bad, 96)).toThrow(invalid);
    expect(() => quantizeMatrix(values, { ...options, quantizer: gptq() })).toThrow(invalid);
  });

  it('28: refuses sizes that do not fit', () => {
    const invalid = expect.objectContaining({ code: 'invalid-argument' });
    expect(() => quantizeMatrix(new Float32Array(95), options)).toThrow(invalid);
    expect(() => quantizeMatrix(new Float32Array(0), { ...options, rows: 0 })).toThrow(invalid);
  });

  it('29: a group that does not divide a row is an error or a smaller group, never skipped', () => {
    const values = normals(96, 31);
    const uneven = { ...options, groupSize: 64 } as const;
    expect(() => quantizeMatrix(values, uneven)).toThrow(
      expect.objectContaining({ context: { columns: 96, groupSize: 64, largestThatDoes: 32 } }),
    );
    const smaller = quantizeMatrix(values, { ...uneven, unevenGroups: 'smaller' });
    expect(smaller.layout.groupSize).toBe(32);
  });
});

it('moments: mean of x x^T, and its diagonal', () => {
  const two = activationMoments(Float32Array.of(1, 2, 3, 4), 2);
  expect([...two]).toEqual([5, 7, 7, 10]);
  expect([...columnPower(two, 2)]).toEqual([5, 10]);
  expect(outputErrorOf(Float64Array.of(1, -1), two, 2)).toBe(1);
});

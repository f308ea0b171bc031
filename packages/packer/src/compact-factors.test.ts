// Quantizers with compact factors: codes belong to what is stored, hard groups, the better ones
// better, and less error than pairs of f16 at the same true bits. Formats of others: exact or
// refused.
import { describe, expect, it } from 'vitest';
import { factorsAt, unpackRows } from './code-words.js';
import { errorMetrics } from './error-metrics.js';
import { factorCodec } from './factor-codec.js';
import { affineValues, toAffine } from './formats/affine.js';
import { toGgmlBlocks } from './formats/ggml-writer.js';
import { matMulNBitsValues, toMatMulNBits } from './formats/ort.js';
import { matrixValues } from './kernels/host-matrix.js';
import { sampleFloats } from './kernels/sample-matrix.js';
import { bitsPerWeight, type CodeBits } from './matrix-layout.js';
import { quantizeMatrix } from './quantize-matrix.js';
import { gptq } from './quantizers/gptq.js';
import { hqq } from './quantizers/hqq.js';
import { activationMoments, outputErrorOf } from './quantizers/moments.js';
import { optRtn } from './quantizers/opt-rtn.js';
import type { Quantizer } from './quantizers/quantizer.js';
import { rtn } from './quantizers/rtn.js';
import { signRound } from './quantizers/sign-round.js';
import { seededRandom } from './scorers/seeded-random.js';

const BITS: readonly CodeBits[] = [2, 3, 4, 8];
const ALL: readonly Quantizer[] = [
  rtn(),
  rtn({ convention: 'symmetric-full' }),
  rtn({ convention: 'symmetric-restricted' }),
  optRtn(),
  optRtn({ emphasis: 'magnitude' }),
  optRtn({ convention: 'symmetric' }),
  hqq(),
  gptq(),
  signRound({ iterations: 20 }),
];
const columns = 96;
const moments = activationMoments(sampleFloats(150 * columns, 5), columns);

/** About normal, a different spread in each row. */
function weights(rows: number, seed: number): Float32Array {
  const next = seededRandom(seed);
  const sum = (): number => next() + next() + next() + next() - 2;
  return Float32Array.from({ length: rows * columns }, (_, i) => 0.02 * ((i % 5) + 1) * sum());
}

function quantize(values: Float32Array, bits: CodeBits, quantizer: Quantizer) {
  const rows = values.length / columns;
  const how = { bits, quantizer, moments, factors: 'compact' } as const;
  return quantizeMatrix(values, { name: 'w', rows, columns, ...how });
}

describe.each(ALL)('$name with compact factors', (quantizer) => {
  it.each(BITS)('checklist 18: %i-bit codes belong to the stored factors', (bits) => {
    const values = weights(4, 17);
    const matrix = quantize(values, bits, quantizer);
    const codec = factorCodec('compact', bits);
    const { codes } = unpackRows(matrix.layout, matrix);
    const stored = matrixValues(matrix);
    const freesCodes = quantizer.needs === 'moments' || quantizer.name.endsWith('restricted');
    values.forEach((value, i) => {
      const word = factorsAt(matrix.layout, matrix, Math.floor(i / columns), i % columns);
      const [scale, minimum] = [codec.scaleOf(word), codec.minimumOf(word)];
      expect(stored[i]).toBe(Math.fround(scale * (codes[i] ?? 0) + minimum));
      const inside = value >= minimum && value <= minimum + scale * (2 ** bits - 1);
      const bound = inside && !freesCodes ? 0.5 * scale * (1 + 1e-6) : Infinity;
      expect(Math.abs((stored[i] ?? NaN) - value)).toBeLessThanOrEqual(bound);
    });
  });

  it('checklist 22: the same bytes again, and for any split into rows', () => {
    const values = weights(6, 19);
    const whole = quantize(values, 3, quantizer);
    const parts = [0, 1, 4].map((row, i, starts) =>
      quantize(values.slice(row * columns, (starts[i + 1] ?? 6) * columns), 3, quantizer),
    );
    expect([...parts.flatMap((part) => [...part.codes])]).toEqual([...whole.codes]);
    expect([...parts.flatMap((part) => [...part.scales])]).toEqual([...whole.scales]);
    expect(quantize(values, 3, quantizer)).toEqual(whole);
  });

  it('checklist 19: all-zero, constant, single-outlier, one-sided and subnormal groups', () => {
    for (const bits of BITS) {
      const of = (values: Float32Array): Float32Array =>
        matrixValues(quantize(values, bits, quantizer)).map((value) => value + 0);
      expect(of(new Float32Array(columns))).toEqual(new Float32Array(columns));
      for (const sign of [1, -1]) {
        // A symmetric grid has its last code on one side only.
        const tolerance = quantizer.name === 'gptq' || bits === 2 ? 0.12 : 0.04;
        for (const value of of(new Float32Array(columns).fill(0.25 * sign))) {
          expect(Math.abs(value - 0.25 * sign)).toBeLessThan(0.25 * tolerance + 0.004);
        }
      }
      const outlier = new Float32Array(columns);
      outlier[5] = 1;
      const found = of(outlier);
      expect(found.indexOf(Math.max(...found))).toBe(5);
      const tiny = new Float32Array(columns).map((_, i) => (i % 2 === 0 ? 1 : -1) * 1e-9);
      for (const value of of(tiny)) expect(Math.abs(value)).toBeLessThan(2 ** -9);
    }
  });

  it('checklist 19: refuses a scale above the f16 range by name', () => {
    const values = new Float32Array(columns).map((_, i) => (i % 2 === 0 ? 1 : -1) * 2e7);
    expect(() => quantize(values, 4, quantizer)).toThrow(
      expect.objectContaining({ code: 'unsupported' }),
    );
  });
});

describe('checklist 21: errors with compact factors', () => {
  const values = weights(64, 29).subarray(0, 64 * 96);
  const mse = (bits: CodeBits, quantizer: Quantizer, how: object = {}): number => {
    const compact = { groupSize: 32, factors: 'compact' } as const;
    const options = { name: 'w', rows: 96, columns: 64, bits, quantizer, ...compact, ...how };
    return errorMetrics(quantizeMatrix(values, options), values).mse;
  };

  it.each([2, 3, 4, 8] as const)('%i bits: the search wins, and hqq at few bits', (bits) => {
    const plain = mse(bits, rtn());
    expect(mse(bits, optRtn())).toBeLessThan(0.95 * plain);
    expect(mse(bits, hqq())).toBeLessThan(bits === 8 ? 1.01 * plain : 0.95 * plain);
  });

  it.each([2, 3, 4] as const)('%i bits: half the group at the same true bits', (bits) => {
    for (const quantizer of [optRtn(), hqq(), rtn()]) {
      const pairs = mse(bits, quantizer, { groupSize: 64, factors: 'f16' });
      expect(mse(bits, quantizer)).toBeLessThan(0.9 * pairs);
    }
    const of = (groupSize: 16 | 32, factors: 'f16' | 'compact'): number => {
      const options = { name: 'w', rows: 1, columns: 64, bits, groupSize, factors };
      return bitsPerWeight(quantizeMatrix(values.subarray(0, 64), options).layout);
    };
    expect(of(32, 'compact')).toBe(bits + 0.5);
    expect(of(16, 'compact')).toBe(of(32, 'f16'));
  });

  it('gptq and signRound see them too', () => {
    const own = weights(16, 43);
    const outputError = (quantizer: Quantizer): number => {
      const stored = matrixValues(quantize(own, 3, quantizer));
      const difference = Float64Array.from(own, (value, i) => (stored[i] ?? 0) - value);
      return outputErrorOf(difference, moments, columns);
    };
    expect(outputError(gptq())).toBeLessThan(0.8 * outputError(rtn()));
    expect(outputError(signRound({ iterations: 60 }))).toBeLessThan(0.9 * outputError(rtn()));
  });

  it('a quantizer that does not know them is refused', () => {
    const deaf: Quantizer = {
      ...rtn(),
      quantize: (input) => rtn().quantize({ ...input, factors: 'f16' }),
    };
    expect(() => quantize(weights(1, 3), 4, deaf)).toThrow(/compact factors have 16 bits/);
  });
});

describe('checklist 4: compact factors in the formats of others', () => {
  const values = weights(5, 41);
  const centred = rtn({ convention: 'symmetric-restricted' });
  const shape = { name: 'w', rows: 5, columns, factors: 'compact' } as const;
  const plain = (all: Float32Array): number[] => Array.from(all, (value) => value + 0);

  it.each([2, 4] as const)('MatMulNBits holds %i bits with whole zero points', (bits) => {
    const matrix = quantizeMatrix(values, { ...shape, bits, quantizer: centred });
    const repacked = toMatMulNBits(matrix);
    expect(plain(matMulNBitsValues(repacked))).toEqual(plain(matrixValues(matrix)));
    const free = quantizeMatrix(values, { ...shape, bits, quantizer: optRtn() });
    expect(() => toMatMulNBits(free)).toThrow(/no integer zero point/);
  });

  it('GGUF blocks hold what is a pair of f16, and name what is not', () => {
    const matrix = quantizeMatrix(values, { ...shape, bits: 4, quantizer: centred });
    const { type, bytes } = toGgmlBlocks(matrix, 'w');
    expect(type).toBe('Q4_1');
    expect(plain(affineValues(toAffine(type, bytes, 5, columns)))).toEqual(
      plain(matrixValues(matrix)),
    );
    // 1.9375 * 127 / 8 has twelve significant bits.
    const { codes, layout } = matrix;
    const scales = new Uint32Array(layout.rows * layout.scaleWordsPerRow);
    scales.fill(factorCodec('compact', 4).wordOf(1.9375, (-1.9375 * 127) / 8));
    expect(() => toGgmlBlocks({ layout, codes, scales }, 'blk.0.w')).toThrow(
      expect.objectContaining({
        code: 'unsupported',
        context: { tensor: 'blk.0.w', row: 0, column: 0 },
      }),
    );
  });
});

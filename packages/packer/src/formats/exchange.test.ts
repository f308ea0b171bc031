// Checklist 4: our matrices, GGUF blocks and MatMulNBits hold the same values, bit for bit.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { unpackRows } from '../code-words.js';
import { hostMatrix, matrixValues } from '../kernels/host-matrix.js';
import { sampleFloats } from '../kernels/sample-matrix.js';
import { quantizeMatrix } from '../quantize-matrix.js';
import { hqq } from '../quantizers/hqq.js';
import { optRtn } from '../quantizers/opt-rtn.js';
import { rtn } from '../quantizers/rtn.js';
import { affineValues, toAffine } from './affine.js';
import { bytesSource } from './byte-source.js';
import { memorySink } from './file-sink.js';
import { dequantize } from './ggml-blocks.js';
import { toGgmlBlocks } from './ggml-writer.js';
import type { GgufNumberType } from './gguf-metadata.js';
import { writeGguf } from './gguf-writer.js';
import { readGguf } from './gguf.js';
import { fromMatMulNBits, matMulNBitsValues, toMatMulNBits } from './ort.js';
import { readTensorRows } from './tensor-range.js';

const shape = { name: 'w', rows: 5, columns: 96 } as const;
const values = sampleFloats(5 * 96, 41);
const symmetric = rtn({ convention: 'symmetric-full' });

/** A zero has no sign in the comparison: `0 * scale` and `minimum - minimum` differ in it. */
const plain = (all: Float32Array): number[] => Array.from(all, (value) => value + 0);

describe('checklist 4: GGUF blocks', () => {
  it.each([
    ['Q4_0', 4, symmetric],
    ['Q4_0', 4, optRtn({ convention: 'symmetric' })],
    ['Q4_1', 4, rtn()],
    ['Q4_1', 4, hqq()],
    ['Q8_0', 8, symmetric],
  ] as const)('%s holds %i bits', (expected, bits, quantizer) => {
    const matrix = quantizeMatrix(values, { ...shape, bits, quantizer });
    const { type, bytes } = toGgmlBlocks(matrix, 'w');
    expect(type).toBe(expected);
    expect(plain(dequantize(type, bytes))).toEqual(plain(matrixValues(matrix)));
    const back = toAffine(type, bytes, 5, 96);
    expect(back.codes).toEqual(matrix.codes);
    expect(affineValues(back)).toEqual(matrixValues(matrix));
  });

  it('checklist 6: names the tensor that no type can hold', () => {
    for (const options of [
      { bits: 2, quantizer: rtn() },
      { bits: 3, quantizer: rtn() },
      { bits: 8, quantizer: rtn() },
      { bits: 4, quantizer: rtn(), groupSize: 16 },
    ] as const) {
      const matrix = quantizeMatrix(values, { ...shape, ...options });
      expect(() => toGgmlBlocks(matrix, 'blk.0.w')).toThrow(
        expect.objectContaining({
          code: 'unsupported',
          context: expect.objectContaining({ tensor: 'blk.0.w' }),
        }),
      );
    }
  });

  it('a written file is read back, metadata included', async () => {
    const { type, bytes } = toGgmlBlocks(
      quantizeMatrix(values, { ...shape, bits: 4, quantizer: symmetric }),
      'w',
    );
    const norm = new Uint8Array(Float32Array.of(1, 2, 3).buffer);
    const sink = memorySink('out.gguf');
    const metadata = new Map<
      string,
      string | number | boolean | bigint | readonly string[] | Float32Array
    >([
      ['general.architecture', 'llama'],
      ['llama.block_count', 4],
      ['llama.rope.freq_base', 0.5],
      ['flag', true],
      ['wide', 2n ** 40n],
      ['tokens', ['a', 'b']],
      ['scores', Float32Array.of(0.5, -1)],
    ]);
    const tensors = [
      { name: 'norm', type: 'F32', shape: [3], read: async () => norm },
      { name: 'w', type, shape: [5, 96], read: async () => bytes },
    ] as const;
    await writeGguf(sink, tensors, { metadata });
    const source = bytesSource('out.gguf', sink.bytes());
    const file = await readGguf(source);
    expect(file.metadata.string('general.architecture')).toBe('llama');
    expect(file.metadata.integer('llama.block_count')).toBe(4);
    expect(file.metadata.number('llama.rope.freq_base')).toBe(0.5);
    expect(file.metadata.boolean('flag')).toBe(true);
    expect(file.metadata.strings('tokens')).toEqual(['a', 'b']);
    expect(file.metadata.numbers('scores')).toEqual(Float32Array.of(0.5, -1));
    const tensor = file.tensors.get('w');
    if (tensor === undefined) throw new Error('w is missing');
    expect(await readTensorRows(source, tensor, 0, 5)).toEqual(bytes);
    const bad = { name: 'w', type, shape: [5, 80], read: async () => bytes } as const;
    await expect(writeGguf(memorySink('x'), [bad])).rejects.toThrow(/not rows of whole Q4_0/);
  });
});

describe('numbers of GGUF metadata', () => {
  const norm = new Uint8Array(4);
  const written = async (
    metadata: ReadonlyMap<string, number | bigint>,
    options: { shape?: number[]; types?: ReadonlyMap<string, GgufNumberType> } = {},
  ) => {
    const { shape = [1], ...rest } = options;
    const sink = memorySink('out.gguf');
    const tensor = { name: 'norm', type: 'F32', shape, read: async () => norm } as const;
    await writeGguf(sink, [tensor], { metadata, ...rest });
    return (await readGguf(bytesSource('out.gguf', sink.bytes()))).metadata;
  };

  it('are read as they were written, whichever they are', async () => {
    const some = [5_000_000_001, 2 ** 53 - 1, -7, -5_000_000_001, 0.1, -1e300, Math.PI, 0.5, NaN];
    const metadata = new Map(some.map((value, i) => [`n${i}`, value]));
    expect((await written(metadata)).entries).toEqual(metadata);
  });

  it('keep their types', async () => {
    const types = new Map<string, GgufNumberType>([
      ['llama.rope.freq_base', 'f32'],
      ...(['u8', 'i8', 'u16', 'i16', 'u32', 'i32', 'f32', 'u64', 'i64', 'f64'] as const).map(
        (type) => [type, type] as const,
      ),
    ]);
    const metadata = new Map([...types.keys()].map((key) => [key, 100]));
    const found = await written(metadata, { types });
    expect([found.types, found.entries]).toEqual([types, metadata]);
  });

  it.each([
    ['u8', 256],
    ['i32', 0.5],
    ['u32', NaN],
    ['u64', 0.5],
    ['u64', 2n ** 64n],
    ['i64', Infinity],
    ['f32', 0.1],
  ] as const)('are refused where their type does not hold them: %s %s', async (type, value) => {
    const types = new Map([['n', type]]);
    const writing = written(new Map([['n', value]]), { types });
    await expect(writing).rejects.toMatchObject({
      code: 'invalid-argument',
      context: { key: 'n' },
    });
  });

  it('are not written beside a tensor without extents, which no reader takes', async () => {
    await expect(written(new Map(), { shape: [] })).rejects.toThrow(/'norm' \[\] is not rows/);
  });
});

describe('checklist 4: MatMulNBits', () => {
  it.each([2, 4, 8] as const)('%i bits with default zero points, values included', (bits) => {
    const matrix = quantizeMatrix(values, { ...shape, bits, quantizer: symmetric });
    const repacked = toMatMulNBits(matrix);
    expect(repacked.zeroPoints).toBeUndefined();
    expect(plain(matMulNBitsValues(repacked))).toEqual(plain(matrixValues(matrix)));
    expect(fromMatMulNBits(repacked)).toEqual(matrix);
  });

  it.each([2, 4, 8] as const)('%i bits with zero points: scales, codes and zero points', (bits) => {
    const matrix = quantizeMatrix(values, { ...shape, bits, quantizer: rtn() });
    const repacked = toMatMulNBits(matrix);
    expect(repacked.zeroPoints).toHaveLength(5 * Math.ceil((3 * bits) / 8));
    expect(fromMatMulNBits(repacked)).toEqual(matrix);
    const theirs = matMulNBitsValues(repacked);
    // Their zero point times the scale is rounded to f16 here.
    matrixValues(matrix).forEach((value, i) => {
      expect(Math.abs(value - (theirs[i] ?? NaN))).toBeLessThanOrEqual(2 ** -11);
    });
  });

  it('any tensors of theirs come back bit for bit', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 2 * 96, maxLength: 2 * 96, max: 15 }),
        fc.array(fc.integer({ min: 0x1000, max: 0x3c00 }), { minLength: 6, maxLength: 6 }),
        fc.uint8Array({ minLength: 4, maxLength: 4 }),
        (fields, scales, zeroPoints) => {
          const codes = Uint8Array.from({ length: 96 }, (_, i) =>
            Number((fields[2 * i] ?? 0) | ((fields[2 * i + 1] ?? 0) << 4)),
          );
          // The upper nibble of a row's last byte is unused.
          const points = zeroPoints.map((byte, i) => (i % 2 === 1 ? byte & 15 : byte));
          const theirs = {
            rows: 2,
            columns: 96,
            bits: 4,
            groupSize: 32,
            codes,
            scales: Uint16Array.from(scales),
            zeroPoints: points,
          } as const;
          const back = toMatMulNBits(fromMatMulNBits(theirs));
          expect(back.codes).toEqual(codes);
          expect(back.scales).toEqual(theirs.scales);
          const isDefault = points.every((byte, i) => byte === (i % 2 === 1 ? 8 : 0x88));
          expect(back.zeroPoints).toEqual(isDefault ? undefined : points);
        },
      ),
      { seed: 6 },
    );
  });

  it('has no 3 bits and no float zero points', () => {
    const three = quantizeMatrix(values, { ...shape, bits: 3 });
    expect(() => toMatMulNBits(three)).toThrow(/no affine3/);
    const float = quantizeMatrix(values, { ...shape, bits: 4, quantizer: hqq() });
    expect(() => toMatMulNBits(float)).toThrow(/no integer zero point/);
    const { factors } = unpackRows(float.layout, float);
    expect(factors).toHaveLength(15);
    expect(hostMatrix({ ...float.layout }, float).layout).toEqual(float.layout);
  });
});

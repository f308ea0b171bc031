// Tensors that packing leaves as they are: blocks of GGUF keep their codes and their size.
import { describe, expect, it } from 'vitest';
import { bytesSource } from './formats/byte-source.js';
import { memorySink } from './formats/file-sink.js';
import { toGgmlBlocks } from './formats/ggml-writer.js';
import { readPackedFile, readPackedRows } from './formats/packed-file.js';
import { packedMatrixLayout } from './formats/packed-layout.js';
import { sourceValues, type SourceTensor } from './formats/weight-source.js';
import { hostMatrix, matrixValues } from './kernels/host-matrix.js';
import { sampleFloats } from './kernels/sample-matrix.js';
import { packModel, planModel } from './pack-model.js';
import { quantizeMatrix } from './quantize-matrix.js';
import { rtn } from './quantizers/rtn.js';

const [rows, columns] = [3, 64];

/** A matrix as `type` has it; 8-bit codes around zero, 4-bit ones with a minimum. */
function blocks(name: string, type: 'Q8_0' | 'Q4_1', shape = [rows, columns]): SourceTensor {
  const bits = type === 'Q8_0' ? 8 : 4;
  const quantizer = rtn({ convention: bits === 8 ? 'symmetric-full' : 'asymmetric' });
  const values = sampleFloats(rows * columns, bits);
  const matrix = quantizeMatrix(values, { name, rows, columns, bits, quantizer });
  const { type: stored, bytes } = toGgmlBlocks(matrix, name);
  expect(stored).toBe(type);
  return { name, type, shape, sizeBytes: bytes.byteLength, readBytes: async () => bytes };
}

describe('weights that cannot be packed', () => {
  const huge = sampleFloats(rows * columns, 1).map((value) => value * 1e9);
  const bytes = new Uint8Array(huge.buffer);
  const floats = { name: 'huge', type: 'F32', shape: [rows, columns], sizeBytes: 768 } as const;
  const large: SourceTensor = { ...floats, readBytes: async () => bytes };

  it.each([1, 2])('are told with the name of their tensor, by %i threads', async (workers) => {
    const plan = planModel([large], { plan: () => ({ bits: 4, quantizer: rtn() }) });
    await expect(packModel(plan, memorySink('out'), { workers })).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringMatching(/^unsupported: 'huge': scale or minimum \S+ is above the f16/),
      context: { tensor: 'huge', value: expect.any(Number) },
    });
  });

  it('are told with the name of their tensor where they are kept blocks', async () => {
    const good = blocks('head', 'Q8_0');
    const broken = await good.readBytes();
    new DataView(broken.buffer, broken.byteOffset).setUint16(34, 0x7e00, true);
    const plan = planModel([{ ...good, readBytes: async () => broken }], { plan: () => 'keep' });
    await expect(packModel(plan, memorySink('out'))).rejects.toMatchObject({
      code: 'corrupt-data',
      message: expect.stringMatching(/^corrupt-data: 'head': factor .* row 0 column 32$/),
      context: { tensor: 'head', row: 0, column: 32 },
    });
  });
});

describe('a kept tensor of blocks', () => {
  it('stays at its width, with the same values', async () => {
    const tensors = [blocks('embedding', 'Q8_0'), blocks('head', 'Q4_1')];
    const sink = memorySink('out');
    await packModel(planModel(tensors, { plan: () => 'keep' }), sink);
    const file = await readPackedFile(bytesSource('out', sink.bytes()));
    const formats = ['affine8', 'affine4'];
    for (const [at, tensor] of tensors.entries()) {
      const placed = file.tensors.get(tensor.name);
      const layout = placed && packedMatrixLayout(placed);
      if (placed === undefined || layout === undefined) throw new Error('it is not a matrix');
      const storage = { format: formats[at], groupSize: 32, quantizer: tensor.type };
      expect(placed.storage).toEqual(storage);
      const words = async (section: 'codes' | 'scales') => {
        const bytes = await readPackedRows(file, placed, { section, firstRow: 0, rowCount: rows });
        return new Uint32Array(bytes.slice().buffer);
      };
      const matrix = hostMatrix(layout, {
        codes: await words('codes'),
        scales: await words('scales'),
      });
      expect(matrixValues(matrix)).toEqual(await sourceValues(tensor));
    }
  });

  it('is refused as a vector of numbers that F16 does not have, by place', async () => {
    const q8 = (scaleBits: number): Uint8Array => {
      const bytes = new Uint8Array(34).fill(127);
      new DataView(bytes.buffer).setUint16(0, scaleBits, true);
      return bytes;
    };
    const packed = (bytes: Uint8Array): Promise<void> => {
      const rest = { sizeBytes: 34, readBytes: async () => bytes };
      const vector: SourceTensor = { name: 'bias', type: 'Q8_0', shape: [32], ...rest };
      return packModel(planModel([vector], { plan: () => 'keep' }), memorySink('out'));
    };
    await expect(packed(q8(0x7e00))).rejects.toMatchObject({
      code: 'corrupt-data',
      context: { tensor: 'bias', index: 0 },
    });
    await expect(packed(q8(0x7bff))).rejects.toMatchObject({
      code: 'unsupported',
      context: { tensor: 'bias', index: 0 },
    });
  });

  it('becomes F16 where it is a vector', () => {
    const vector = blocks('bias', 'Q8_0', [rows * columns]);
    const { layout } = planModel([vector], { plan: () => 'keep' });
    expect(layout.tensors[0]?.storage).toEqual({ format: 'F16' });
  });
});

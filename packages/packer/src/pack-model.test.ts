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

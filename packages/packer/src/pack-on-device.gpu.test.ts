/** Packing on the device gives the bytes of the CPU, for every width, group and convention. */
import { createGpu } from '@vramkit/adapter';
import { createTensor, openDevice, type Tensor, type VramDevice } from '@vramkit/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packGroupsCpu } from './kernels/pack-groups.cpu.js';
import { affineMatrixFormat, matrixLayout, type CodeBits } from './matrix-layout.js';
import { createMatrix } from './matrix.js';
import { packOnDevice } from './pack-on-device.js';
import type { RtnConvention } from './quantizers/rtn.js';
import { seededRandom } from './scorers/seeded-random.js';

let gpu: GPU;
let device: VramDevice;
beforeAll(async () => {
  ({ gpu } = await createGpu());
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

const CONVENTIONS: readonly RtnConvention[] = [
  'asymmetric',
  'symmetric-full',
  'symmetric-restricted',
];
const WIDTHS: readonly CodeBits[] = [2, 3, 4, 8];

/** Groups of every kind: plain, of one sign, on ties, constant, zero, tiny, subnormal, uneven. */
function awkwardWeights(count: number, run: number, seed: number): Float32Array {
  const next = seededRandom(seed);
  const values = new Float32Array(count);
  for (let start = 0; start < count; start += run) {
    const kind = Math.floor(next() * 10);
    const size = 2 ** Math.floor(next() * 24 - 18);
    const bits = new Uint32Array(1);
    for (let i = start; i < Math.min(count, start + run); i++) {
      const plain = (2 * next() - 1) * size;
      if (kind < 3) values[i] = plain;
      else if (kind === 3) values[i] = Math.abs(plain);
      else if (kind === 4) values[i] = -Math.abs(plain);
      else if (kind === 5) values[i] = (Math.floor(next() * 33) - 16) * size;
      else if (kind === 6) values[i] = (Math.floor(next() * 61) / 2 - 15) * size;
      else if (kind === 7) values[i] = next() < 0.9 ? 0 : plain * 1e-30;
      else if (kind === 8) values[i] = next() < 0.5 ? -0 : (next() - 0.5) * 1e-41;
      else {
        // Any exponent up to 2^13.
        bits[0] = Math.floor(next() * 2) * 2 ** 31 + Math.floor(next() * 140 * 2 ** 23);
        values[i] = new Float32Array(bits.buffer)[0] ?? 0;
      }
    }
  }
  return values;
}

function weightsTensor(on: VramDevice, values: Float32Array): Tensor {
  const layout = { dtype: 'f32', shape: [values.length], kind: 'weights', label: 'w' } as const;
  const tensor = createTensor(on, layout);
  tensor.write(values);
  return tensor;
}

async function expectSameBytes(
  on: VramDevice,
  shape: {
    rows: number;
    columns: number;
    bits: CodeBits;
    groupSize: number;
    factors?: 'compact';
  },
  convention: RtnConvention,
): Promise<void> {
  const { rows, columns, bits, groupSize, factors } = shape;
  const stored = { rows, columns, format: affineMatrixFormat(bits), groupSize, factors };
  const layout = { ...matrixLayout(stored), bits };
  const values = awkwardWeights(rows * columns, groupSize, rows + bits);
  const expected = packGroupsCpu(values, layout, convention);
  using tensor = weightsTensor(on, values);
  using matrix = createMatrix(on, { ...stored, label: 'packed' });
  await packOnDevice(tensor, matrix, { convention });
  for (const { firstRow, rowCount, codes, scales } of matrix.segments) {
    const read = async (range: typeof codes, perRow: number): Promise<Uint32Array> => {
      const bytes = await on.readback.read(range);
      return new Uint32Array(bytes.slice().buffer).subarray(0, rowCount * perRow);
    };
    const part = (words: Uint32Array, perRow: number): Uint32Array =>
      words.slice(firstRow * perRow, (firstRow + rowCount) * perRow);
    const { codeWordsPerRow, scaleWordsPerRow } = layout;
    const gotScales = await read(scales, scaleWordsPerRow);
    expect(gotScales).toEqual(part(expected.scales, scaleWordsPerRow));
    const gotCodes = await read(codes, codeWordsPerRow);
    expect(gotCodes).toEqual(part(expected.codes, codeWordsPerRow));
  }
}

describe('packOnDevice', () => {
  // Each width with each convention, each convention with each group: a pipeline for every case
  // takes a software driver seconds to compile.
  const cases = WIDTHS.flatMap((bits, row) =>
    CONVENTIONS.map((convention, column) => ({
      ...{ bits, convention },
      groupSize: [16, 32, 128][(row + column) % 3] ?? 32,
    })),
  );
  it.each(cases)(
    'checklist 22, 25: $bits bits, groups of $groupSize, $convention: the bytes of the CPU',
    async ({ bits, groupSize, convention }) => {
      await expectSameBytes(device, { rows: 97, columns: 384, bits, groupSize }, convention);
    },
  );

  it.each(cases)(
    'compact: $bits bits, groups of $groupSize, $convention: the bytes of the CPU',
    async ({ bits, groupSize, convention }) => {
      // Odd numbers of groups: the last one is alone in its word.
      const columns = groupSize === 16 && bits < 4 ? 480 : 15 * groupSize;
      const shape = { rows: 61, columns, bits, groupSize, factors: 'compact' } as const;
      await expectSameBytes(device, shape, convention);
    },
  );

  it('checklist 22: a row as a group gives the bytes of the CPU', () =>
    expectSameBytes(device, { rows: 5, columns: 160, bits: 3, groupSize: 160 }, 'asymmetric'));

  it('splits over a small binding limit', async () => {
    const small = await openDevice({ gpu, limits: { maxStorageBufferBindingSize: 2 ** 14 } });
    const shape = { rows: 300, columns: 256, bits: 4, groupSize: 32 } as const;
    await expectSameBytes(small, shape, 'asymmetric');
    small.dispose();
  });

  it('checklist 19, 27: refuses weights that are not finite, and scales above f16', async () => {
    using matrix = createMatrix(device, { rows: 2, columns: 32, format: 'affine4', label: 'm' });
    const plain = Float32Array.from({ length: 64 }, (_, i) => i);
    const cases = [
      { at: NaN, code: 'corrupt-data' },
      { at: -Infinity, code: 'corrupt-data' },
      { at: 3e38, code: 'unsupported' },
    ];
    for (const { at, code } of cases) {
      using values = weightsTensor(device, plain.with(40, at));
      await expect(packOnDevice(values, matrix)).rejects.toMatchObject({ code });
    }
    using values = weightsTensor(device, plain);
    await packOnDevice(values, matrix);
    using dense = createMatrix(device, { rows: 2, columns: 32, format: 'f16', label: 'd' });
    await expect(packOnDevice(values, dense)).rejects.toMatchObject({ code: 'unsupported' });
  });
});

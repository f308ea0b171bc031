// Packed files with compact factors have a version of the manifest of their own.
import { describe, expect, it } from 'vitest';
import { sampleFloats } from '../kernels/sample-matrix.js';
import type { FactorFormat } from '../matrix-layout.js';
import { packModel, planModel } from '../pack-model.js';
import { quantizeMatrix } from '../quantize-matrix.js';
import { rtn } from '../quantizers/rtn.js';
import { buildSafetensors } from '../testing/build-safetensors.js';
import { bytesSource } from './byte-source.js';
import { memorySink } from './file-sink.js';
import { readPackedFile, readPackedRows } from './packed-file.js';
import { packedMatrixLayout } from './packed-layout.js';
import { readSafetensors } from './safetensors.js';
import { sourceTensors } from './weight-source.js';

const how = { bits: 3, quantizer: rtn() } as const;
const values = sampleFloats(5 * 96, 2);

/** A file of two matrices; the factors of `a` are of that format. */
async function packed(factors: FactorFormat): Promise<Uint8Array> {
  const tensor = { type: 'F32', shape: [5, 96], bytes: new Uint8Array(values.buffer) };
  const source = bytesSource(
    'in',
    buildSafetensors([
      { ...tensor, name: 'a' },
      { ...tensor, name: 'b' },
    ]),
  );
  const tensors = sourceTensors(source, (await readSafetensors(source)).tensors.values());
  const plan = planModel(tensors, {
    plan: ({ name }) => (name === 'a' ? { ...how, factors } : how),
  });
  const sink = memorySink('out');
  await packModel(plan, sink);
  return sink.bytes();
}

function headerOf(bytes: Uint8Array): string {
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  return new TextDecoder().decode(bytes.subarray(8, 8 + length));
}

describe('versions of the manifest', () => {
  it('are 1 without compact factors, and say nothing of factors', async () => {
    const bytes = await packed('f16');
    expect(headerOf(bytes)).toContain('{\\"version\\":1,');
    expect(headerOf(bytes)).not.toContain('factors');
    const file = await readPackedFile(bytesSource('out', bytes));
    const layouts = [...file.tensors.values()].map((tensor) => packedMatrixLayout(tensor)?.factors);
    expect(new Set(layouts)).toEqual(new Set(['f16']));
  });

  it('are 2 with compact factors, which are read back', async () => {
    const bytes = await packed('compact');
    expect(headerOf(bytes)).toContain('{\\"version\\":2,');
    const file = await readPackedFile(bytesSource('out', bytes));
    const [a, b] = ['a', 'b'].map((name) => file.tensors.get(name));
    if (a === undefined || b === undefined) throw new Error('tensors are missing');
    expect([a, b].map((tensor) => packedMatrixLayout(tensor)?.factors)).toEqual(['compact', 'f16']);
    const shape = { name: 'a', rows: 5, columns: 96, factors: 'compact' } as const;
    const matrix = quantizeMatrix(values, { ...how, ...shape });
    const all = { firstRow: 0, rowCount: 5 } as const;
    const scales = await readPackedRows(file, a, { ...all, section: 'scales' });
    expect(new Uint32Array(scales.slice().buffer)).toEqual(matrix.scales);
  });

  it('refuse compact factors in version 1, and other factors', async () => {
    for (const [from, to] of [
      ['{\\"version\\":2,', '{\\"version\\":1,'],
      ['\\"compact\\"', '\\"compost\\"'],
    ] as const) {
      const bytes = await packed('compact');
      const text = headerOf(bytes).replace(from, to);
      bytes.set(new TextEncoder().encode(text), 8);
      await expect(readPackedFile(bytesSource('out', bytes))).rejects.toMatchObject({
        code: 'unsupported',
      });
    }
  });
});

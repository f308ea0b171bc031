// Bytes that are Node's Buffers at an odd place of their pool: slice() of one is a view, no copy.
import { describe, expect, it } from 'vitest';
import { sampleFloats } from '../kernels/sample-matrix.js';
import { packModel, planModel } from '../pack-model.js';
import { rtn } from '../quantizers/rtn.js';
import { buildGguf } from '../testing/build-gguf.js';
import { buildSafetensors } from '../testing/build-safetensors.js';
import { toAffine } from './affine.js';
import { bytesSource, type ByteSource } from './byte-source.js';
import { denseToF16, denseToF32 } from './dense.js';
import { memorySink } from './file-sink.js';
import { importanceOf, readImatrix } from './imatrix.js';
import { readPackedFile, readPackedTensors } from './packed-file.js';
import { readSafetensors } from './safetensors.js';
import { sourceTensors, sourceValues } from './weight-source.js';

const values = sampleFloats(6 * 32, 5);
const bytes = new Uint8Array(values.buffer);

function pooled(of: Uint8Array): Buffer {
  return Buffer.concat([new Uint8Array(1), of]).subarray(1);
}

/** A source that gives Buffers, and the last one that it gave. */
function pooledSource(content: Uint8Array): ByteSource & { last: Buffer } {
  const inner = bytesSource('in', content);
  const source: ByteSource & { last: Buffer } = {
    ...inner,
    last: Buffer.of(),
    read: async (offset: number, length: number) =>
      (source.last = pooled(await inner.read(offset, length))),
  };
  return source;
}

describe("a Buffer in Node's pool", () => {
  it('has the values that its bytes have', () => {
    expect(denseToF32('F32', pooled(bytes))).toEqual(values);
    expect(denseToF32('BF16', pooled(bytes))).toEqual(denseToF32('BF16', bytes));
    expect(denseToF16('F16', pooled(bytes))).toEqual(denseToF16('F16', bytes));
    const blocks = new Uint8Array(18 * 4).fill(3);
    expect(toAffine('Q4_0', pooled(blocks), 2, 64)).toEqual(toAffine('Q4_0', blocks, 2, 64));
  });

  it('is copied by a source of bytes', async () => {
    const content = pooled(bytes);
    const read = await bytesSource('in', content).read(4, 8);
    content.fill(0);
    expect(read).toEqual(bytes.slice(4, 12));
  });

  it('is turned as other bytes are', async () => {
    const tensor = { name: 'w', type: 'F32', shape: [32, 6], bytes };
    const source = pooledSource(buildSafetensors([tensor]));
    const { tensors } = await readSafetensors(source);
    const expected = () => ({ rows: 6, columns: 32 });
    const [turned] = sourceTensors(source, tensors.values(), { expected });
    const found = turned === undefined ? [] : [...(await sourceValues(turned))];
    expect(found).toEqual([...values].map((_, i) => values[(i % 32) * 6 + Math.floor(i / 32)]));
  });

  it('is read as an importance matrix', async () => {
    const squares = new Float32Array(32).fill(1.5);
    const f32 = (name: string, of: Float32Array) => {
      return {
        name,
        type: 'F32' as const,
        shape: [1, of.length],
        bytes: new Uint8Array(of.buffer),
      };
    };
    const file = buildGguf({
      metadata: { 'general.type': 'imatrix' },
      tensors: [f32('w.in_sum2', squares), f32('w.counts', Float32Array.of(1))],
    });
    const imatrix = await readImatrix(pooledSource(file));
    expect(importanceOf(imatrix, 'w', { columns: 32 })).toEqual(squares);
  });

  it('is copied to sections of a packed file', async () => {
    const plain = bytesSource(
      'in',
      buildSafetensors([{ name: 'w', type: 'F32', shape: [6, 32], bytes }]),
    );
    const tensors = sourceTensors(plain, (await readSafetensors(plain)).tensors.values());
    const sink = memorySink('out');
    await packModel(planModel(tensors, { plan: () => ({ bits: 4, quantizer: rtn() }) }), sink);
    const source = pooledSource(sink.bytes());
    const file = await readPackedFile(source);
    const sections = (await readPackedTensors(file, ['w'])).get('w') ?? [];
    const before = sections.map((section) => Uint8Array.from(section));
    source.last.fill(0);
    expect(sections.map((section) => Uint8Array.from(section))).toEqual(before);
  });
});

// What packing reads, keeps and says: transposed experts, host memory by measurement, the time that
// is left, an expert by one read.
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { sampleFloats } from '../kernels/sample-matrix.js';
import { matrixBytes } from '../matrix-layout.js';
import { packModel, planModel } from '../pack-model.js';
import { rtn } from '../quantizers/rtn.js';
import { buildSafetensors } from '../testing/build-safetensors.js';
import { bytesSource, type ByteSource } from './byte-source.js';
import { f32ArrayToF16 } from './dense.js';
import { fileSink, memorySink } from './file-sink.js';
import { fileSource } from './file-source.js';
import { readPackedFile, readPackedTensors, type PackedFile } from './packed-file.js';
import { packedMatrixLayout } from './packed-layout.js';
import { readSafetensors } from './safetensors.js';
import { sourceTensors, sourceValues, type SourceTensorsOptions } from './weight-source.js';

const quantizer = rtn();

describe('checklist 7: fused experts stored as [experts, columns, rows]', () => {
  const [experts, rows, columns] = [3, 6, 32];
  const values = sampleFloats(experts * rows * columns, 11);
  const turned = values.map((_, i) => {
    const [expert, column, row] = [
      Math.floor(i / (rows * columns)),
      Math.floor((i % (rows * columns)) / rows),
      i % rows,
    ];
    return values[expert * rows * columns + row * columns + column] ?? NaN;
  });
  const of = async (type: 'F32' | 'F16', options: SourceTensorsOptions, shape = [3, 32, 6]) => {
    const stored = type === 'F32' ? turned : f32ArrayToF16(turned);
    const bytes = new Uint8Array(stored.buffer);
    const file = buildSafetensors([{ name: 'experts', type, shape, bytes }]);
    const reads: number[] = [];
    const inner = bytesSource('in', file);
    const source: ByteSource = {
      ...inner,
      read: (offset, length, signal) => {
        reads.push(length);
        return inner.read(offset, length, signal);
      },
    };
    const tensors = (await readSafetensors(source)).tensors.values();
    reads.length = 0;
    return { parts: sourceTensors(source, tensors, options), reads };
  };

  it.each(['F32', 'F16'] as const)('%s: seen by shape, one expert at a time', async (type) => {
    const { parts, reads } = await of(type, { expected: () => ({ rows, columns }) });
    expect(parts.map(({ name, shape }) => [name, ...shape])).toEqual(
      [0, 1, 2].map((expert) => [`experts.${expert}`, rows, columns]),
    );
    const [, second] = parts;
    if (second === undefined) throw new Error('no second expert');
    const size = rows * columns;
    const expected = values.slice(size, 2 * size);
    const found = await sourceValues(second);
    found.forEach((value, i) => expect(value).toBeCloseTo(expected[i] ?? NaN, 3));
    if (type === 'F32') expect(found).toEqual(expected);
    expect(reads).toEqual([size * (type === 'F32' ? 4 : 2)]);
  });

  it('a square has to be said, and another shape is refused by name', async () => {
    const square = [9, 8, 8];
    const read = async (transposed?: boolean) => {
      const matrix = { rows: 8, columns: 8, ...(transposed === undefined ? {} : { transposed }) };
      const { parts } = await of('F32', { expected: () => matrix }, square);
      const [first] = parts;
      return first === undefined ? new Float32Array() : sourceValues(first);
    };
    const plain = await read();
    const swapped = await read(true);
    expect(await read(false)).toEqual(plain);
    expect(swapped).not.toEqual(plain);
    plain.forEach((value, i) => expect(swapped[(i % 8) * 8 + Math.floor(i / 8)]).toBe(value));
    await expect(of('F32', { expected: () => ({ rows: 7, columns }) })).rejects.toMatchObject({
      code: 'invalid-argument',
      context: { tensor: 'experts', rows: 7, columns },
    });
    const declared = { rows, columns, transposed: false };
    await expect(of('F32', { expected: () => declared })).rejects.toThrow(/is \[32, 6\], not/);
  });
});

it('refuses experts without elements, of which a header may claim any number', async () => {
  const header = '{"w":{"dtype":"F32","shape":[5000000000,0,4],"data_offsets":[0,0]}}';
  const text = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + text.byteLength);
  bytes[0] = text.byteLength;
  bytes.set(text, 8);
  const source = bytesSource('in', bytes);
  const { tensors } = await readSafetensors(source);
  const split = () => sourceTensors(source, tensors.values());
  expect(split).toThrow(/'w' is not 5000000000 matrices of one size/);
});

describe('checklist 23: host memory', () => {
  it.each([0, 2])('holds no more than one tensor, measured, by %i threads', async (workers) => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const folder = await mkdtemp(join(tmpdir(), 'vramkit-memory-'));
    const [count, rows, columns] = [12, 512, 1024];
    const tensorBytes = rows * columns * 4;
    try {
      const path = join(folder, 'in.safetensors');
      await writeTensors(path, count, rows, columns);
      const source = await fileSource(path);
      const held = (): number => {
        collect();
        const { arrayBuffers, heapUsed } = process.memoryUsage();
        return arrayBuffers + heapUsed;
      };
      let most = 0;
      const before = held();
      const look = (): void => void (most = Math.max(most, held() - before));
      const header = await readSafetensors(source);
      const tensors = sourceTensors(source, header.tensors.values()).map((tensor) => ({
        ...tensor,
        readBytes: async (signal?: AbortSignal) => {
          const bytes = await tensor.readBytes(signal);
          look();
          return bytes;
        },
      }));
      const inner = await fileSink(join(folder, 'out.safetensors'));
      const sink = {
        ...inner,
        write: async (offset: number, bytes: Uint8Array) => {
          look();
          await inner.write(offset, bytes);
        },
      };
      const plan = planModel(tensors, { plan: () => ({ bits: 4, quantizer }) });
      await packModel(plan, sink, { onProgress: look, workers });
      await inner.close();
      await source.close();
      // The bytes of a tensor, its weights in f32, its codes and its words; never a second one.
      expect(most).toBeGreaterThan(tensorBytes);
      expect(most).toBeLessThan(3 * tensorBytes);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  /** A file of `count` matrices, written one by one. */
  async function writeTensors(path: string, count: number, rows: number, columns: number) {
    const sizeBytes = rows * columns * 4;
    const entries = Array.from({ length: count }, (_, i) => [
      `w${i}`,
      { dtype: 'F32', shape: [rows, columns], data_offsets: [i * sizeBytes, (i + 1) * sizeBytes] },
    ]);
    const header = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
    const file = await open(path, 'w');
    await file.write(new Uint8Array(BigUint64Array.of(BigInt(header.length)).buffer));
    await file.write(header);
    const values = sampleFloats(rows * columns, 7);
    for (let i = 0; i < count; i++) await file.write(new Uint8Array(values.buffer));
    await file.close();
  }
});

describe('checklist 24: the time that is left', () => {
  it('follows from the bytes of this run', async () => {
    const sizes = [32, 96, 64];
    const inputs = sizes.map((columns, i) => {
      const bytes = new Uint8Array(sampleFloats(4 * columns, i).buffer);
      return { name: `w${i}`, type: 'F32', shape: [4, columns], bytes };
    });
    const source = bytesSource('in', buildSafetensors(inputs));
    const tensors = sourceTensors(source, (await readSafetensors(source)).tensors.values());
    const plan = planModel(tensors, { plan: () => ({ bits: 4, quantizer }) });
    const run = async (done: Map<string, string>) => {
      let time = 1000;
      const left: number[] = [];
      await packModel(plan, memorySink('out'), {
        done,
        now: () => (time += 100),
        onProgress: ({ tensor, checksum, msLeft, doneBytes }) => {
          done.set(tensor, checksum);
          left.push(msLeft, doneBytes / 16);
        },
      });
      return left;
    };
    const done = new Map<string, string>();
    // One reading of the clock for each tensor: 100 ms for 32 columns leave 500 ms for 160.
    expect(await run(done)).toEqual([500, 32, 100, 128, 0, 192]);
    done.delete('w2');
    done.delete('w1');
    expect(await run(done)).toEqual([(100 * 64) / 96, 128, 0, 192]);
  });
});

describe('checklist 35: an expert from a store that reads ranges', () => {
  const names = ['gate', 'up', 'down'].map((part) => `experts.1.${part}`);

  async function packed(): Promise<{ file: PackedFile; reads: number[]; bytes: Uint8Array }> {
    const inputs = [0, 1, 2].flatMap((expert) =>
      ['gate', 'up', 'down'].map((part, i) => {
        const shape = part === 'down' ? [64, 96] : [96, 64];
        const bytes = new Uint8Array(sampleFloats(96 * 64, 10 * expert + i).buffer);
        return { name: `experts.${expert}.${part}`, type: 'F32', shape, bytes };
      }),
    );
    const source = bytesSource('in', buildSafetensors(inputs));
    const tensors = sourceTensors(source, (await readSafetensors(source)).tensors.values());
    const sink = memorySink('out');
    const plan = planModel(tensors, {
      plan: ({ name }) => ({ bits: name.includes('.1.') ? 3 : 4, quantizer }),
    });
    await packModel(plan, sink);
    const bytes = sink.bytes();
    const reads: number[] = [];
    const inner = bytesSource('out', bytes);
    const read: ByteSource['read'] = (offset, length, signal) => {
      reads.push(length);
      return inner.read(offset, length, signal);
    };
    const file = await readPackedFile({ ...inner, read });
    reads.length = 0;
    return { file, reads, bytes };
  }

  it('comes by one read for gate, up and down, of about the bytes of its slot', async () => {
    const { file, reads } = await packed();
    const found = await readPackedTensors(file, names);
    const slotBytes = names.reduce((sum, name) => {
      const tensor = file.tensors.get(name);
      const layout = tensor && packedMatrixLayout(tensor);
      return sum + (layout === undefined ? NaN : matrixBytes(layout));
    }, 0);
    const sizes = [...found.values()].flat().map(({ byteLength }) => byteLength);
    expect(sizes.reduce((a, b) => a + b, 0)).toBe(slotBytes);
    expect(reads).toHaveLength(1);
    // Sections start at 256 B: at most that between two of the six.
    expect(reads[0]).toBeLessThan(slotBytes + 5 * 256);
    // Far apart they are read apart.
    reads.length = 0;
    await readPackedTensors(file, ['experts.0.gate', 'experts.2.down'], { maxGapBytes: 256 });
    expect(reads).toHaveLength(2);
    const nobody = readPackedTensors(file, ['nobody']);
    await expect(nobody).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  it('is compared with its checksum', async () => {
    const { file, bytes } = await packed();
    const section = file.tensors.get('experts.1.up')?.sections[1];
    const at = file.layout.dataOffset + (section?.begin ?? 0);
    const changed = bytes.slice();
    changed[at] = (changed[at] ?? 0) ^ 4;
    const damaged = { ...file, source: bytesSource('out', changed) };
    await expect(readPackedTensors(damaged, names)).rejects.toMatchObject({
      code: 'corrupt-data',
      context: { tensor: 'experts.1.up' },
    });
    await readPackedTensors(damaged, ['experts.1.gate', 'experts.1.down']);
  });
});

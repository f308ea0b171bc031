// Packed files: what is written is read back; headers that lie are refused; memory and
// interruption.
import { isVramError } from '@vramkit/core';
import fc from 'fast-check';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { matrixValues } from '../kernels/host-matrix.js';
import { sampleFloats } from '../kernels/sample-matrix.js';
import { packModel, planModel, type TensorPlan } from '../pack-model.js';
import { quantizeMatrix } from '../quantize-matrix.js';
import { rtn } from '../quantizers/rtn.js';
import { buildSafetensors } from '../testing/build-safetensors.js';
import { bytesSource, type ByteSource } from './byte-source.js';
import { fileSink, memorySink, type ByteSink } from './file-sink.js';
import { fileSource } from './file-source.js';
import { readPackedFile, readPackedRows, verifyPacked } from './packed-file.js';
import { MANIFEST_KEY, PACKED_ALIGNMENT } from './packed-layout.js';
import { readSafetensors } from './safetensors.js';
import { sourceTensors, type SourceTensor } from './weight-source.js';

const quantizer = rtn();

function f32Tensor(name: string, shape: readonly number[], seed: number) {
  const values = sampleFloats(
    shape.reduce((a, b) => a * b, 1),
    seed,
  );
  return { name, type: 'F32', shape, bytes: new Uint8Array(values.buffer), values };
}

const inputs = [
  f32Tensor('norm', [96], 1),
  f32Tensor('a', [5, 96], 2),
  f32Tensor('b', [7, 64], 3),
  f32Tensor('experts', [3, 4, 32], 4),
];

async function sources(): Promise<SourceTensor[]> {
  const source = bytesSource('in', buildSafetensors(inputs));
  return sourceTensors(source, (await readSafetensors(source)).tensors.values());
}

const WIDTHS = [2, 3, 4, 8] as const;

/** Every width in one file, and compact factors of some. */
function planOf({ name, shape }: SourceTensor): TensorPlan {
  if (shape.length !== 2) return 'keep';
  const bits = WIDTHS[(name.charCodeAt(0) + name.charCodeAt(name.length - 1)) % 4] ?? 4;
  const isCompact = name === 'a' || name === 'experts.1';
  return { bits, quantizer, ...(isCompact && { factors: 'compact' }) };
}

async function packed(): Promise<Uint8Array> {
  const sink = memorySink('out');
  await packModel(planModel(await sources(), { plan: planOf, notes: { made: 'here' } }), sink);
  return sink.bytes();
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vramkit-packer-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('a packed file', () => {
  it('checklist 1, 6 and 7: holds every width, experts of a fused tensor apart', async () => {
    const bytes = await packed();
    const file = await readPackedFile(bytesSource('out', bytes));
    expect([...file.tensors.keys()]).toEqual([
      'norm',
      'a',
      'b',
      'experts.0',
      'experts.1',
      'experts.2',
    ]);
    const formats = [...file.tensors.values()].map(({ storage }) => storage.format);
    expect(new Set(formats)).toEqual(new Set(['F32', 'affine2', 'affine3', 'affine4', 'affine8']));
    expect(file.layout.notes).toEqual({ made: 'here' });
    expect(file.layout.sizeBytes).toBe(bytes.byteLength);
    for (const tensor of file.tensors.values()) await verifyPacked(file, tensor);
  });

  it('is read in its own order, also where names are whole numbers', async () => {
    const names = ['b', '10', '2', '__proto__'];
    const tensors = names.map((name, i) => f32Tensor(name, [4, 32 * (i + 1)], i));
    const source = bytesSource('in', buildSafetensors(tensors));
    const sink = memorySink('out');
    const { tensors: header } = await readSafetensors(source);
    // JSON has 2 before 10 before b; the file has them the other way round.
    const found = sourceTensors(source, header.values()).reverse();
    const plan = planModel(found, {
      plan: ({ name }) => (name === '10' ? 'keep' : { bits: 4, quantizer }),
    });
    await packModel(plan, sink);
    const file = await readPackedFile(bytesSource('out', sink.bytes()));
    expect([...file.tensors.keys()]).toEqual(found.map(({ name }) => name));
    expect(new Set(file.tensors.keys())).toEqual(new Set(names));
    for (const tensor of file.tensors.values()) await verifyPacked(file, tensor);
  });

  it('holds the words of quantizeMatrix, rows by range', async () => {
    const file = await readPackedFile(bytesSource('out', await packed()));
    const tensor = file.tensors.get('b');
    const input = inputs[2];
    if (tensor === undefined || input === undefined) throw new Error('b is missing');
    const plan = planOf({ name: 'b', shape: [7, 64] } as unknown as SourceTensor);
    if (plan === 'keep') throw new Error('b is packed');
    const matrix = quantizeMatrix(input.values, { ...plan, name: 'b', rows: 7, columns: 64 });
    const perRow = matrix.layout.codeWordsPerRow;
    const rows = await readPackedRows(file, tensor, { section: 'codes', firstRow: 2, rowCount: 3 });
    const words = new Uint32Array(rows.slice().buffer);
    expect(words).toEqual(matrix.codes.slice(2 * perRow, 5 * perRow));
    expect(matrixValues(matrix).length).toBe(448);
    const outside = { section: 'scales', firstRow: 6, rowCount: 2 } as const;
    expect(() => readPackedRows(file, tensor, outside)).toThrow(/rows 6 \+ 2 of scales/);
  });

  it('checklist 8: every section starts at a multiple of 256 B', async () => {
    const file = await readPackedFile(bytesSource('out', await packed()));
    for (const { begin } of file.layout.tensors.flatMap(({ sections }) => sections)) {
      expect((file.layout.dataOffset + begin) % PACKED_ALIGNMENT).toBe(0);
    }
  });

  it('checklist 22: has the same bytes every time', async () => {
    expect(await packed()).toEqual(await packed());
  });

  it('checklist 24: a dry run knows the size to the byte', async () => {
    const reads: string[] = [];
    const watched = (await sources()).map((tensor) => ({
      ...tensor,
      readBytes: (signal?: AbortSignal) => {
        reads.push(tensor.name);
        return tensor.readBytes(signal);
      },
    }));
    const plan = planModel(watched, { plan: planOf, notes: { made: 'here' } });
    expect(reads).toEqual([]);
    expect(plan.layout.sizeBytes).toBe((await packed()).byteLength);
  });
});

describe('checklist 23 and 24: packing to disk', () => {
  it('reads one tensor at a time and writes each before the next is read', async () => {
    const order: string[] = [];
    const inner = memorySink('out');
    const sink: ByteSink = {
      ...inner,
      write: async (offset, bytes) => {
        order.push('write');
        await inner.write(offset, bytes);
      },
    };
    const watched = (await sources()).map((tensor) => ({
      ...tensor,
      readBytes: (signal?: AbortSignal) => {
        order.push('read');
        return tensor.readBytes(signal);
      },
    }));
    await packModel(planModel(watched, { plan: planOf }), sink);
    const text = order.map((each) => each[0]).join('');
    // One read, then its one or two sections; gaps and the header come last.
    expect(text).toMatch(/^(rww?){6}w*$/);
  });

  it('resumes after an interruption, and the file appears whole', async () => {
    const path = join(folder, 'model.safetensors');
    const done = new Map<string, string>();
    const plan = planModel(await sources(), { plan: planOf, notes: { made: 'here' } });
    const first = await fileSink(path);
    const stop = new AbortController();
    const interrupted = packModel(plan, first, {
      signal: stop.signal,
      onProgress: ({ tensor, checksum, doneBytes, totalBytes }) => {
        done.set(tensor, checksum);
        expect(doneBytes).toBeLessThanOrEqual(totalBytes);
        if (done.size === 3) stop.abort();
      },
    });
    await expect(interrupted).rejects.toMatchObject({ code: 'aborted' });
    await first.close();
    await expect(stat(path)).rejects.toThrow();
    const second = await fileSink(path, { resume: true });
    const written: string[] = [];
    await packModel(plan, second, {
      done,
      onProgress: ({ tensor }) => void written.push(tensor),
    });
    expect(written).toHaveLength(3);
    expect(new Uint8Array(await readFile(path))).toEqual(await packed());
    await expect(stat(`${path}.part`)).rejects.toThrow();
    const source = await fileSource(path);
    expect((await readPackedFile(source)).tensors.size).toBe(6);
    await source.close();
  });
});

describe('checklist 26 to 31: what is refused', () => {
  it('26: a changed weight, a file cut short and one too long', async () => {
    const bytes = await packed();
    const file = await readPackedFile(bytesSource('out', bytes));
    const begin = file.layout.dataOffset + (file.tensors.get('a')?.sections[0]?.begin ?? 0);
    bytes[begin + 3] = (bytes[begin + 3] ?? 0) ^ 1;
    const changed = await readPackedFile(bytesSource('out', bytes));
    const tensor = changed.tensors.get('a');
    if (tensor === undefined) throw new Error('a is missing');
    await expect(verifyPacked(changed, tensor)).rejects.toMatchObject({
      code: 'corrupt-data',
      context: { tensor: 'a' },
    });
    const corrupt = { code: 'corrupt-data' };
    const short = bytesSource('out', bytes.slice(0, -1));
    await expect(readPackedFile(short)).rejects.toMatchObject(corrupt);
    const long = bytesSource('out', Uint8Array.from([...bytes, 0]));
    await expect(readPackedFile(long)).rejects.toMatchObject(corrupt);
  });

  it('27: weights that are not finite, kept or packed', async () => {
    const bad = f32Tensor('w', [2, 32], 5);
    bad.values[40] = NaN;
    const source = bytesSource('in', buildSafetensors([bad]));
    const tensors = sourceTensors(source, (await readSafetensors(source)).tensors.values());
    for (const plan of ['keep', { bits: 4, quantizer }] as const) {
      const packing = packModel(planModel(tensors, { plan: () => plan }), memorySink('out'));
      await expect(packing).rejects.toMatchObject({ code: 'corrupt-data', context: { index: 40 } });
    }
  });

  it('28: element types without weights, and repeated names', async () => {
    const ids = { name: 'ids', type: 'I64', shape: [2], bytes: new Uint8Array(16) };
    const source = bytesSource('in', buildSafetensors([ids]));
    const { tensors } = await readSafetensors(source);
    expect(() => sourceTensors(source, tensors.values())).toThrow(/'ids' of I64 holds no weights/);
    const [tensor] = await sources();
    if (tensor === undefined) throw new Error('no tensor');
    expect(() => planModel([tensor, tensor], { plan: () => 'keep' })).toThrow(/is taken/);
  });

  it('31: quantizing what is quantized already, unless allowed', async () => {
    const [, tensor] = await sources();
    if (tensor === undefined) throw new Error('no tensor');
    const blocks: SourceTensor = {
      ...tensor,
      type: 'Q8_0',
      shape: [5, 96],
      readBytes: async () => new Uint8Array(15 * 34),
    };
    const plan = { plan: () => ({ bits: 4, quantizer }) as const };
    expect(() => planModel([blocks], plan)).toThrow(/'a' is Q8_0 already/);
    const sink = memorySink('out');
    await packModel(planModel([blocks], { ...plan, allowRequantize: true }), sink);
    const file = await readPackedFile(bytesSource('out', sink.bytes()));
    expect(file.tensors.get('a')?.storage.format).toBe('affine4');
  });

  /** Damaged bytes are refused with a typed error, or read as a file that is whole. */
  async function survives(changed: Uint8Array): Promise<boolean> {
    const source: ByteSource = bytesSource('out', changed);
    let file;
    try {
      file = await readPackedFile(source);
    } catch (error) {
      if (!isVramError(error)) throw error;
      expect(['corrupt-data', 'unsupported']).toContain(error.code);
      expect(error.message).toContain('out');
      return false;
    }
    for (const tensor of file.tensors.values()) {
      for (const { begin, end } of tensor.sections) {
        expect(end).toBeGreaterThan(begin);
        expect(file.layout.dataOffset + end).toBeLessThanOrEqual(changed.byteLength);
      }
      await verifyPacked(file, tensor).catch((error: unknown) => {
        if (!isVramError(error, 'corrupt-data')) throw error;
      });
    }
    return true;
  }

  it('fuzz: a header with bytes changed gives a typed error or is checked', async () => {
    const bytes = await packed();
    const { layout } = await readPackedFile(bytesSource('out', bytes));
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(layout.dataOffset - 1), fc.integer({ min: 0x20, max: 0x7e })), {
          minLength: 1,
          maxLength: 4,
        }),
        async (changes) => {
          const copy = bytes.slice();
          for (const [at, value] of changes) copy[at] = value;
          await survives(copy);
        },
      ),
      { seed: 9, numRuns: 300 },
    );
  });

  it('fuzz: a manifest and tensor headers with any value replaced', async () => {
    const bytes = await packed();
    const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))) as Json;
    const metadata = (header as Record<string, Record<string, string>>)['__metadata__'];
    const manifest = JSON.parse(metadata?.[MANIFEST_KEY] ?? '') as Json;
    const hostile: Json[] = [null, true, '', 'x', [], {}, -1, 0, 1, 1.5, 2 ** 31, 2 ** 53, 1e300];
    const withHeader = (text: Json): Uint8Array => {
      const json = new TextEncoder().encode(JSON.stringify(text));
      // The header's length stays where it can, so that offsets are still those of the file.
      const padded = new Uint8Array(Math.max(length, json.length)).fill(0x20);
      padded.set(json);
      const head = new Uint8Array(BigUint64Array.of(BigInt(padded.length)).buffer);
      return Uint8Array.from([...head, ...padded, ...bytes.subarray(8 + length)]);
    };
    const withManifest = (text: Json): Uint8Array =>
      withHeader({
        ...(header as object),
        ['__metadata__']: { ...metadata, [MANIFEST_KEY]: JSON.stringify(text) },
      });
    expect(await survives(withManifest(manifest))).toBe(true);
    let [refused, tried] = [0, 0];
    for (const [whole, build] of [
      [manifest, withManifest],
      [header, withHeader],
    ] as const) {
      for (const path of pathsOf(whole)) {
        for (const value of [...hostile, undefined]) {
          tried += 1;
          if (!(await survives(build(replaced(whole, path, value))))) refused += 1;
        }
      }
    }
    expect(tried).toBeGreaterThan(2000);
    // What is left over are notes, names of quantizers and values that are what was there.
    expect(refused / tried).toBeGreaterThan(0.9);
  });
});

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** Every place of a value, as keys from the top. */
function pathsOf(value: Json, path: readonly string[] = []): (readonly string[])[] {
  if (typeof value !== 'object' || value === null) return [path];
  return [path, ...Object.entries(value).flatMap(([key, each]) => pathsOf(each, [...path, key]))];
}

/** A copy with another value at a place, or nothing there. */
function replaced(value: Json, [key, ...rest]: readonly string[], by: Json | undefined): Json {
  if (key === undefined) return by ?? null;
  if (Array.isArray(value)) {
    const items = value as readonly Json[];
    return items.flatMap((item, i) => {
      if (String(i) !== key) return [item];
      return rest.length === 0 && by === undefined ? [] : [replaced(item, rest, by)];
    });
  }
  const entries = Object.entries(value as { readonly [key: string]: Json });
  return Object.fromEntries(
    entries.flatMap(([name, item]): [string, Json][] => {
      if (name !== key) return [[name, item]];
      return rest.length === 0 && by === undefined ? [] : [[name, replaced(item, rest, by)]];
    }),
  );
}

// Valid GGUF headers are read in full; each kind of invalid one is refused with names and numbers.
import { isVramError, type VramErrorCode } from '@vramkit/core';
import { describe, expect, it } from 'vitest';
import { buildGguf, type BuildGgufTensor } from '../testing/build-gguf.js';
import { bytesSource } from './byte-source.js';
import type { GgmlType } from './ggml-types.js';
import { readGguf } from './gguf.js';
import { readTensorRows } from './tensor-range.js';

function tensor(name: string, shape: readonly number[], sizeBytes: number): BuildGgufTensor {
  const bytes = Uint8Array.from({ length: sizeBytes }, (_, i) => i);
  return { name, type: 'F32', shape, bytes };
}

function patched(bytes: Uint8Array, after: string, skip: number, value: bigint): Uint8Array {
  const copy = bytes.slice();
  const needle = new TextEncoder().encode(after);
  const at = copy.findIndex((_, i) => needle.every((byte, j) => copy[i + j] === byte));
  new DataView(copy.buffer).setBigUint64(at + needle.length + skip, value, true);
  return copy;
}

async function refusal(bytes: Uint8Array): Promise<{ code: VramErrorCode; message: string }> {
  try {
    await readGguf(bytesSource('m.gguf', bytes));
  } catch (error) {
    if (isVramError(error)) return error;
    throw error;
  }
  throw new Error('the file was accepted');
}

describe('checklist 5: readGguf', () => {
  it('reads metadata of every kind that the builder writes', async () => {
    const metadata = {
      text: 'grüße',
      count: 4_000_000_000,
      half: 0.5,
      big: 2n ** 63n,
      small: 7n,
      yes: true,
      bytes: Uint8Array.of(1, 2, 255),
      ints: Int32Array.of(-1, 5),
      words: Uint32Array.of(9),
      floats: Float32Array.of(1.5, -2),
      strings: ['a', '', 'ĠĠ'],
    };
    const file = await readGguf(bytesSource('m.gguf', buildGguf({ metadata })));
    expect(Object.fromEntries(file.metadata.entries)).toEqual({ ...metadata, small: 7 });
    expect(file.version).toBe(3);
  });

  it('gives shapes slowest first, and rows by range', async () => {
    const bytes = buildGguf({
      version: 2,
      tensors: [tensor('a', [3, 2], 24), tensor('b', [4], 16)],
    });
    const source = bytesSource('m.gguf', bytes);
    const file = await readGguf(source);
    const a = file.tensors.get('a');
    const b = file.tensors.get('b');
    if (a === undefined || b === undefined) throw new Error('a tensor is missing');
    expect(a).toMatchObject({ shape: [3, 2], rows: 3, rowBytes: 8, sizeBytes: 24, type: 'F32' });
    expect(b).toMatchObject({ shape: [4], rows: 1, rowBytes: 16 });
    expect(a.offset % 32).toBe(0);
    expect([...(await readTensorRows(source, a, 1, 2))]).toEqual([...Array(24).keys()].slice(8));
    expect(() => readTensorRows(source, a, 2, 2)).toThrow(/rows \[2, \+2\) are outside of 3 rows/);
  });

  it('follows general.alignment', async () => {
    const bytes = buildGguf({
      alignment: 128,
      metadata: { 'general.alignment': 128 },
      tensors: [tensor('a', [1], 4), tensor('b', [1], 4)],
    });
    const file = await readGguf(bytesSource('m.gguf', bytes));
    expect(file.tensors.get('b')?.offset).toBe(file.dataOffset + 128);
    expect(file.dataOffset % 128).toBe(0);
  });

  it('reads a header that is larger than one window of the file', async () => {
    const strings = Array.from({ length: 60_000 }, (_, i) => `token ${i} 語`);
    const floats = Float32Array.from({ length: 200_000 }, (_, i) => i);
    const file = await readGguf(
      bytesSource('m.gguf', buildGguf({ metadata: { strings, floats, last: 1 } })),
    );
    expect(file.metadata.strings('strings')).toEqual(strings);
    expect(file.metadata.numbers('floats')).toEqual(floats);
    expect(file.metadata.integer('last')).toBe(1);
  });

  it('refuses a value of another kind than asked for', async () => {
    const file = await readGguf(bytesSource('m.gguf', buildGguf({ metadata: { a: 'x', b: 0.5 } })));
    expect(() => file.metadata.integer('a')).toThrow(/m\.gguf: metadata 'a' must be an integer/);
    expect(() => file.metadata.integer('b')).toThrow(/corrupt-data/);
    expect(() => file.metadata.strings('a')).toThrow(/an array of strings/);
    expect(file.metadata.string('missing')).toBeUndefined();
  });

  it('stops when the signal fires', async () => {
    const signal = AbortSignal.abort();
    const source = bytesSource('m.gguf', buildGguf({}));
    await expect(readGguf(source, { signal })).rejects.toThrow(/aborted/);
  });

  it('refuses a header above the cap', async () => {
    const source = bytesSource('m.gguf', buildGguf({ metadata: { a: 'x'.repeat(500) } }));
    await expect(readGguf(source, { maxHeaderBytes: 400 })).rejects.toThrow(
      /unsupported: m\.gguf: metadata 'a' at 45 passes the header cap of 400 B/,
    );
  });
});

const good = buildGguf({
  metadata: { key: 'value', list: ['x'] },
  tensors: [tensor('a', [8], 32)],
});
const wrongMagic = good.map((byte, i) => (i === 0 ? 0x58 : byte));
const sameKeys = buildGguf({ metadata: { aa: 1, ab: 2 } });
sameKeys[sameKeys.lastIndexOf(0x62)] = 0x61;
const nested = buildGguf({ metadata: { key: new Uint8Array(80) } });
const nestedAt = nested.indexOf(0x79) + 5;
// array of arrays of arrays of arrays, each of length 1
for (let depth = 0; depth < 4; depth++) {
  new DataView(nested.buffer).setUint32(nestedAt + 12 * depth, 9, true);
  new DataView(nested.buffer).setBigUint64(nestedAt + 12 * depth + 4, 1n, true);
}
const notBoolean = buildGguf({ metadata: { key: true } });
notBoolean[notBoolean.indexOf(0x79) + 5] = 2;

const cases: readonly [string, Uint8Array, VramErrorCode, RegExp][] = [
  ['an empty file', new Uint8Array(0), 'corrupt-data', /m\.gguf: GGUF header at 0 needs 24 B/],
  ['a wrong magic', wrongMagic, 'corrupt-data', /it starts with 0x46554758/],
  ['version 1', buildGguf({ version: 1 }), 'unsupported', /GGUF version 1/],
  ['version 4', buildGguf({ version: 4 }), 'unsupported', /GGUF version 4/],
  ['big-endian', buildGguf({ version: 0x03000000 }), 'unsupported', /big-endian/],
  [
    'a cut pair',
    good.slice(0, 40),
    'corrupt-data',
    /metadata of 2 pairs at 24 needs 26 B, the file has 40 B/,
  ],
  [
    'a cut value',
    buildGguf({ metadata: { key: 'value' } }).slice(0, 48),
    'corrupt-data',
    /metadata 'key' at 47 needs 5 B, the file has 48 B/,
  ],
  [
    'a cut tensor',
    good.slice(0, good.length - 8),
    'corrupt-data',
    /tensor 'a' takes bytes \[128, \+32\)/,
  ],
  [
    'a huge tensor count',
    patched(good, 'GGUF', 4, 2n ** 40n),
    'corrupt-data',
    /list of 1099511627776 tensors at \d+ needs/,
  ],
  [
    'a huge pair count',
    patched(good, 'GGUF', 12, 1000n),
    'corrupt-data',
    /metadata of 1000 pairs at 24 needs 13000 B/,
  ],
  [
    'a size above 2^53',
    patched(good, 'GGUF', 12, 2n ** 60n),
    'corrupt-data',
    /metadata count is 1152921504606846976/,
  ],
  [
    'a huge string',
    patched(good, 'key', 4, 5_000_000n),
    'corrupt-data',
    /metadata 'key' at 47 needs 5000000 B/,
  ],
  [
    'a huge array',
    patched(good, 'list', 8, 10n ** 9n),
    'corrupt-data',
    /metadata 'list' at \d+ needs 8000000000 B/,
  ],
  [
    'an unknown value type',
    patched(good, 'key', 0, 13n),
    'corrupt-data',
    /'key' has the unknown value type 13/,
  ],
  ['nesting', nested, 'unsupported', /metadata 'key' nests arrays deeper than 3/],
  ['a boolean of 2', notBoolean, 'corrupt-data', /metadata 'key' is not a boolean/],
  ['repeated keys', sameKeys, 'corrupt-data', /metadata 'aa' appears twice/],
  [
    'a name that is not UTF-8',
    good.map((byte) => (byte === 0x61 ? 0xff : byte)),
    'corrupt-data',
    /is not UTF-8/,
  ],
  [
    'alignment 3',
    buildGguf({ metadata: { 'general.alignment': 3 } }),
    'corrupt-data',
    /alignment is 3/,
  ],
  [
    'alignment 2^31',
    buildGguf({ metadata: { 'general.alignment': 2 ** 31 } }),
    'corrupt-data',
    /alignment is 2147483648/,
  ],
  [
    'alignment 0',
    buildGguf({ metadata: { 'general.alignment': 0 } }),
    'corrupt-data',
    /alignment is 0/,
  ],
  [
    'alignment as text',
    buildGguf({ metadata: { 'general.alignment': '32' } }),
    'corrupt-data',
    /must be an integer/,
  ],
];

const tensorCases: readonly [string, readonly BuildGgufTensor[], VramErrorCode, RegExp][] = [
  [
    'repeated names',
    [tensor('a', [8], 32), tensor('a', [8], 32)],
    'corrupt-data',
    /tensor 'a' appears twice/,
  ],
  ['rank 0', [tensor('a', [], 4)], 'corrupt-data', /tensor 'a' has rank 0/],
  ['rank 5', [tensor('a', [1, 1, 1, 1, 1], 4)], 'corrupt-data', /tensor 'a' has rank 5/],
  [
    'an extent of 0',
    [tensor('a', [0, 8], 0)],
    'corrupt-data',
    /tensor 'a' \[0, 8\] of F32 has no valid size/,
  ],
  [
    'extents that overflow',
    [tensor('a', [2 ** 40, 2 ** 40], 0)],
    'corrupt-data',
    /has no valid size/,
  ],
  [
    'a row that is not whole blocks',
    [{ ...tensor('a', [2, 16], 18), type: 'Q4_0' }],
    'corrupt-data',
    /\[2, 16\] of Q4_0/,
  ],
  [
    'an unaligned offset',
    [{ ...tensor('a', [1], 40), statedOffset: 4 }],
    'corrupt-data',
    /offset 4, not a multiple of 32/,
  ],
  [
    'an offset out of the file',
    [{ ...tensor('a', [1], 4), statedOffset: 2 ** 40 }],
    'corrupt-data',
    /the file has \d+ B/,
  ],
  [
    'overlap',
    [tensor('a', [16], 64), { ...tensor('b', [1], 64), statedOffset: 32 }],
    'corrupt-data',
    /tensors 'a' and 'b' overlap/,
  ],
  [
    'a known type that is not read',
    [{ ...tensor('a', [256], 66), type: 16 }],
    'unsupported',
    /'a' has the unsupported type IQ2_XXS/,
  ],
  [
    'an unknown type',
    [{ ...tensor('a', [8], 32), type: 999 }],
    'unsupported',
    /unsupported type type 999/,
  ],
  [
    'a name of 300 bytes',
    [tensor('n'.repeat(300), [1], 4)],
    'corrupt-data',
    /name of tensor 0 is 300 B long/,
  ],
];

describe('checklist 28: readGguf refuses', () => {
  it.each(cases)('%s', async (_, bytes, code, message) => {
    const error = await refusal(bytes);
    expect(error.message).toMatch(message);
    expect(error.code).toBe(code);
  });

  it.each(tensorCases)('%s', async (_, tensors, code, message) => {
    const error = await refusal(buildGguf({ tensors }));
    expect(error.message).toMatch(message);
    expect(error.code).toBe(code);
  });

  it('nothing of a file with one block of every type', async () => {
    const blocks: [GgmlType, number, number][] = [
      ['F16', 1, 2],
      ['BF16', 1, 2],
      ['Q4_0', 32, 18],
      ['Q4_1', 32, 20],
      ['Q5_0', 32, 22],
      ['Q5_1', 32, 24],
      ['Q8_0', 32, 34],
      ['Q2_K', 256, 84],
      ['Q3_K', 256, 110],
      ['Q4_K', 256, 144],
      ['Q5_K', 256, 176],
      ['Q6_K', 256, 210],
    ];
    const tensors = blocks.map(([type, weights, sizeBytes]) => ({
      ...tensor(type, [3, weights], 3 * sizeBytes),
      type,
    }));
    const file = await readGguf(bytesSource('m.gguf', buildGguf({ tensors })));
    for (const [type, , sizeBytes] of blocks) {
      expect(file.tensors.get(type)).toMatchObject({ type, rows: 3, rowBytes: sizeBytes });
    }
  });
});

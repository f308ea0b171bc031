// Valid safetensors files are read; each kind of invalid header or index is refused by name and
// number.
import { isVramError } from '@vramkit/core';
import { describe, expect, it } from 'vitest';
import { buildSafetensors } from '../testing/build-safetensors.js';
import { bytesSource, type ByteSource } from './byte-source.js';
import { readSafetensorsShards } from './safetensors-shards.js';
import { readSafetensors } from './safetensors.js';
import { readTensorRows } from './tensor-range.js';

const bytes = (count: number) => Uint8Array.from({ length: count }, (_, i) => i);
const a = { name: 'a', type: 'F32', shape: [2, 3], bytes: bytes(24) };
const b = { name: 'b', type: 'BF16', shape: [], bytes: bytes(2) };
const none = { name: 'none', type: 'I64', shape: [0, 4], bytes: bytes(0) };

describe('checklist 5: readSafetensors', () => {
  it('reads tensors of any rank, empty ones and metadata', async () => {
    const metadata = { format: 'pt', 'quote "\u00e9"': 'line\nbreak' };
    const source = bytesSource('m.safetensors', buildSafetensors([a, none, b], { metadata }));
    const file = await readSafetensors(source);
    expect(Object.fromEntries(file.metadata)).toEqual(metadata);
    expect(file.tensors.get('a')).toMatchObject({
      type: 'F32',
      shape: [2, 3],
      rows: 2,
      rowBytes: 12,
    });
    expect(file.tensors.get('b')).toMatchObject({ shape: [], rows: 1, rowBytes: 2 });
    expect(file.tensors.get('none')).toMatchObject({ rows: 0, sizeBytes: 0 });
    const tensor = file.tensors.get('a');
    if (tensor === undefined) throw new Error('a is missing');
    expect([...(await readTensorRows(source, tensor, 1, 1))]).toEqual([...bytes(24)].slice(12));
  });

  it('accepts white space and an empty file of no tensors', async () => {
    const header = ' {"x" : {"shape":[ 2 ],\n"data_offsets":[0,2], "dtype":"U8"} }   '.trimStart();
    const file = await readSafetensors(
      bytesSource('m', buildSafetensors([{ ...b, type: 'U8' }], { header })),
    );
    expect(file.tensors.get('x')?.shape).toEqual([2]);
    expect((await readSafetensors(bytesSource('m', buildSafetensors([])))).tensors.size).toBe(0);
  });
});

const entry = (dtype: string, shape: string, offsets: string) =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`;
const wrong: readonly [string, string, RegExp][] = [
  [
    'a size that does not follow from shape',
    `{"a":${entry('F32', '[2]', '[0,4]')}}`,
    /'a' F32 \[2\] takes 8 B, not \[0, 4\)/,
  ],
  ['reversed offsets', `{"a":${entry('U8', '[0]', '[4,0]')}}`, /not \[4, 0\)/],
  ['a hole', `{"a":${entry('F32', '[1]', '[4,8]')}}`, /'a' at \d+ leaves a hole before it/],
  [
    'an overlap',
    `{"a":${entry('F32', '[1]', '[0,4]')},"b":${entry('F32', '[1]', '[2,6]')}}`,
    /'b' at \d+ overlaps/,
  ],
  [
    'trailing bytes',
    `{"a":${entry('U8', '[3]', '[0,3]')}}`,
    /tensors end at \d+, the file has \d+ B/,
  ],
  ['data out of the file', `{"a":${entry('U8', '[9]', '[0,9]')}}`, /tensors end at/],
  [
    'a shape that overflows',
    `{"a":${entry('U8', '[9007199254740991,9]', '[0,9]')}}`,
    /takes \d+ B/,
  ],
  [
    'repeated names',
    `{"a":${entry('U8', '[4]', '[0,4]')},"a":${entry('U8', '[4]', '[4,8]')}}`,
    /the key 'a' appears twice/,
  ],
  ['a repeated field', '{"a":{"dtype":"U8","dtype":"U8"}}', /the key 'dtype' appears twice/],
  [
    'a missing field',
    '{"a":{"dtype":"U8","shape":[]}}',
    /'a' needs dtype, shape and two data_offsets/,
  ],
  ['an unknown field', '{"a":{"kind":1}}', /'a' has the unknown field 'kind'/],
  ['a negative extent', `{"a":${entry('U8', '[-1]', '[0,0]')}}`, /expected an integer/],
  ['a fractional extent', `{"a":${entry('U8', '[1.5]', '[0,0]')}}`, /expected ','/],
  [
    'an extent above 2^53',
    `{"a":${entry('U8', '[99999999999999999999]', '[0,0]')}}`,
    /below 2\^53/,
  ],
  ['rank 9', `{"a":${entry('U8', '[1,1,1,1,1,1,1,1,1]', '[0,1]')}}`, /more than 8 entries/],
  ['a string for an object', '{"a":"b"}', /expected '\{'/],
  ['metadata that is not text', '{"__metadata__":{"a":1}}', /expected a string/],
  ['an unfinished object', '{"a":', /expected '\{'/],
  ['text after the object', '{} x', /text after the end/],
  ['an unfinished string', '{"a', /unterminated string/],
  ['a wrong escape', String.raw`{"\q":1}`, /malformed string/],
];

describe('checklist 28: readSafetensors refuses', () => {
  it.each(wrong)('%s', async (_, header, message) => {
    const file = buildSafetensors([{ ...a, bytes: bytes(8) }], { header });
    const error: unknown = await readSafetensors(bytesSource('m.safetensors', file)).catch(
      (e) => e,
    );
    expect(isVramError(error, 'corrupt-data')).toBe(true);
    expect(String(error)).toMatch(message);
    expect(String(error)).toContain('m.safetensors');
  });

  it('an unknown element type', async () => {
    const file = buildSafetensors([{ ...a, type: 'F4' }]);
    await expect(readSafetensors(bytesSource('m', file))).rejects.toThrow(
      /unsupported: m: tensor 'a' has the unsupported type F4/,
    );
  });

  it('a header length beyond the file, beyond 100 MB, or no object', async () => {
    const file = buildSafetensors([a]);
    new DataView(file.buffer).setBigUint64(0, 2n ** 63n, true);
    await expect(readSafetensors(bytesSource('m', file))).rejects.toThrow(
      /header of 9223372036854775808 B; this file of \d+ B allows 2 to \d+/,
    );
    await expect(readSafetensors(bytesSource('m', bytes(7)))).rejects.toThrow(/7 B is too short/);
    await expect(
      readSafetensors(bytesSource('m', buildSafetensors([], { header: '[]' }))),
    ).rejects.toThrow(/no '\{' at byte 8/);
    const huge: ByteSource = {
      ...bytesSource('huge', Uint8Array.of(1, 0xe1, 0xf5, 5, 0, 0, 0, 0)),
      sizeBytes: 2 ** 40,
    };
    await expect(readSafetensors(huge)).rejects.toThrow(/header of 100000001 B.*2 to 100000000/);
  });
});

describe('readSafetensorsShards', () => {
  const files: Record<string, Uint8Array> = {
    'm-1.safetensors': buildSafetensors([a]),
    'm-2.safetensors': buildSafetensors([b, none]),
  };
  const index = (map: Record<string, string>) =>
    new TextEncoder().encode(JSON.stringify({ metadata: { total_size: 26 }, weight_map: map }));
  const whole = { a: 'm-1.safetensors', b: 'm-2.safetensors', none: 'm-2.safetensors' };

  function reading(indexBytes: Uint8Array) {
    const state = { open: 0 };
    const promise = readSafetensorsShards(bytesSource('index.json', indexBytes), {
      open: async (name) => {
        state.open += 1;
        const source = bytesSource(name, files[name] ?? new Uint8Array(0));
        return { ...source, close: async () => void (state.open -= 1) };
      },
    });
    return { promise, state };
  }

  it('joins the tensors of all files and closes them', async () => {
    const { promise, state } = reading(index(whole));
    const shards = await promise;
    expect([...shards.tensors.keys()]).toEqual(['a', 'b', 'none']);
    expect(shards.tensors.get('b')?.file.source.name).toBe('m-2.safetensors');
    expect(state.open).toBe(2);
    await shards.close();
    expect(state.open).toBe(0);
  });

  const wrongIndex: readonly [string, Uint8Array, RegExp][] = [
    [
      'a tensor that its file lacks',
      index({ ...whole, c: 'm-1.safetensors' }),
      /'c' is not in m-1/,
    ],
    [
      'a tensor in two files',
      index({ ...whole, b: 'm-1.safetensors' }),
      /tensor 'b' is not in m-1/,
    ],
    ['a path', index({ a: '../x.safetensors' }), /'a' is in '\.\.\/x\.safetensors', not a/],
    ['another kind of file', index({ a: 'a.bin' }), /not a \.safetensors file/],
    ['no tensor', index({}), /names no tensor/],
    ['a corrupt shard', index({ a: 'missing.safetensors' }), /0 B is too short/],
    ['no JSON', bytes(30), /expected '\{'/],
  ];
  it.each(wrongIndex)('refuses %s and leaves nothing open', async (_, indexBytes, message) => {
    const { promise, state } = reading(indexBytes);
    await expect(promise).rejects.toThrow(message);
    expect(state.open).toBe(0);
  });

  it('refuses a tensor that a second file holds as well', async () => {
    files['m-3.safetensors'] = buildSafetensors([a, { ...b, name: 'c' }]);
    const { promise } = reading(index({ ...whole, c: 'm-3.safetensors' }));
    await expect(promise).rejects.toThrow(/tensor 'a' is in m-1\.safetensors and again in m-3/);
  });
});

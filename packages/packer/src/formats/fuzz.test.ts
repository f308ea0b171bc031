// Damaged and hostile headers: readers either accept or throw a VramError, in bounded time and
// memory.
import { isVramError } from '@vramkit/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { buildGguf } from '../testing/build-gguf.js';
import { buildSafetensors } from '../testing/build-safetensors.js';
import { bytesSource, type ByteSource } from './byte-source.js';
import { readGguf } from './gguf.js';
import { readSafetensors } from './safetensors.js';
import type { TensorRange } from './tensor-range.js';

const gguf = buildGguf({
  metadata: {
    'general.architecture': 'llama',
    'general.alignment': 32,
    'tokenizer.ggml.tokens': ['a', 'bb', 'ccc'],
    'tokenizer.ggml.scores': Float32Array.of(1, 2, 3),
    'llama.rope.freq_base': 10_000.5,
    flag: true,
  },
  tensors: [
    { name: 'token_embd.weight', type: 'Q4_0', shape: [4, 32], bytes: new Uint8Array(72) },
    { name: 'output_norm.weight', type: 'F32', shape: [32], bytes: new Uint8Array(128) },
  ],
});
const safetensors = buildSafetensors(
  [
    { name: 'model.norm.weight', type: 'F32', shape: [8], bytes: new Uint8Array(32) },
    { name: 'x', type: 'BF16', shape: [2, 3], bytes: new Uint8Array(12) },
  ],
  { metadata: { format: 'pt' } },
);

/** Counts what a reader asks for, so that a test can bound it. */
function counted(bytes: Uint8Array): { source: ByteSource; readBytes: () => number } {
  let total = 0;
  const inner = bytesSource('fuzz', bytes);
  const read: ByteSource['read'] = (offset, length, signal) => {
    total += length;
    return inner.read(offset, length, signal);
  };
  return { source: { ...inner, read }, readBytes: () => total };
}

type Reader = (
  source: ByteSource,
) => Promise<{ tensors: ReadonlyMap<string, TensorRange<string>> }>;

/** Reads damaged bytes and checks what may come out. */
async function survive(read: Reader, bytes: Uint8Array): Promise<boolean> {
  const { source, readBytes } = counted(bytes);
  const started = performance.now();
  let accepted = true;
  try {
    const { tensors } = await read(source);
    for (const tensor of tensors.values()) {
      if (tensor.offset < 0 || tensor.offset + tensor.sizeBytes > bytes.length) {
        throw new Error(`tensor '${tensor.name}' is outside of the file`);
      }
    }
  } catch (error) {
    if (!isVramError(error)) throw error;
    expect(['corrupt-data', 'unsupported']).toContain(error.code);
    expect(error.message).toContain('fuzz');
    accepted = false;
  }
  // Windows may overlap, so a file can be read more than once, but never without bound.
  expect(readBytes()).toBeLessThanOrEqual(4 * bytes.length + 1024);
  expect(performance.now() - started).toBeLessThan(1000);
  return accepted;
}

const formats: readonly [string, Uint8Array, Reader][] = [
  ['GGUF', gguf, readGguf],
  ['safetensors', safetensors, readSafetensors],
];

const SIZES = [0n, 1n, 2n ** 16n, 2n ** 31n, 2n ** 32n, 2n ** 53n - 1n, 2n ** 63n, 2n ** 64n - 1n];

describe.each(formats)('%s', (_, valid, read) => {
  it('accepts the file before damage', async () => {
    expect(await survive(read, valid)).toBe(true);
  });

  it('survives every truncation', async () => {
    for (let length = 0; length < valid.length; length++) {
      await survive(read, valid.slice(0, length));
    }
  });

  it('survives flipped and replaced bytes', async () => {
    const change = fc.record({
      at: fc.nat({ max: valid.length - 1 }),
      value: fc.nat({ max: 255 }),
    });
    const changes = fc.array(change, { minLength: 1, maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(changes, async (list) => {
        const bytes = valid.slice();
        for (const { at, value } of list) bytes[at] = value;
        await survive(read, bytes);
      }),
      { seed: 2024, numRuns: 4000 },
    );
  });

  it('survives hostile 64-bit sizes at every position', async () => {
    for (let at = 0; at + 8 <= Math.min(valid.length, 600); at++) {
      for (const size of SIZES) {
        const bytes = valid.slice();
        new DataView(bytes.buffer).setBigUint64(at, size, true);
        await survive(read, bytes);
      }
    }
  });

  it('survives bytes inserted, removed and random', async () => {
    const splice = fc.record({
      at: fc.nat({ max: valid.length }),
      removed: fc.nat({ max: 40 }),
      added: fc.uint8Array({ maxLength: 40 }),
    });
    await fc.assert(
      fc.asyncProperty(splice, async ({ at, removed, added }) => {
        const bytes = [...valid];
        bytes.splice(at, removed, ...added);
        await survive(read, Uint8Array.from(bytes));
      }),
      { seed: 5, numRuns: 1500 },
    );
  });
});

describe('hostile headers of a megabyte', () => {
  const million = 1 << 20;

  it('cost no more memory than a small multiple of the file', async () => {
    const files = [
      buildGguf({ metadata: { a: Array.from({ length: million / 8 }, () => '') } }),
      hostileArrays(million),
      buildSafetensors([], { header: `{"a":${'['.repeat(million)}` }),
      buildSafetensors([], { header: `{"a":{"shape":[${'1,'.repeat(million / 2)}` }),
      buildSafetensors([], { header: `{${'"a":{},'.repeat(million / 8)}` }),
      buildSafetensors([], { header: `{"__metadata__":{"a":"${'\\u0000'.repeat(million / 6)}"}}` }),
    ];
    const before = process.memoryUsage().heapUsed;
    for (const file of files) {
      await survive(readGguf, file);
      await survive(readSafetensors, file);
      expect(process.memoryUsage().heapUsed - before).toBeLessThan(200 * million);
    }
  });
});

/** A GGUF file whose one value is an array of empty arrays that fills the file. */
function hostileArrays(sizeBytes: number): Uint8Array {
  const file = buildGguf({ metadata: { k: new Uint8Array(sizeBytes) } });
  const view = new DataView(file.buffer);
  const at = file.indexOf(0x6b) + 1 + 4;
  const count = Math.floor((sizeBytes - 12) / 12);
  view.setUint32(at, 9, true);
  view.setBigUint64(at + 4, BigInt(count), true);
  return file;
}

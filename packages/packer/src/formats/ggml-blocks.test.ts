// Block values equal those of llama.cpp bit for bit (recorded), and those of blocks made by hand.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { dequantize } from './ggml-blocks.js';
import { GGML_TYPES, ggmlBlock } from './ggml-types.js';

const golden: { types: Record<string, { bytes: string; values: string }> } = JSON.parse(
  readFileSync(new URL('./ggml-blocks.golden.json', import.meta.url), 'utf8'),
);

const decode = (text: string) => Uint8Array.from(Buffer.from(text, 'base64'));

describe('checklist 5: dequantize', () => {
  it.each(GGML_TYPES.filter((type) => type !== 'F32'))('equals llama.cpp for %s', (type) => {
    const recorded = golden.types[type];
    if (recorded === undefined) throw new Error(`${type} is not in the golden file`);
    const values = dequantize(type, decode(recorded.bytes));
    const expected = new Uint32Array(decode(recorded.values).buffer);
    expect(values.length).toBeGreaterThan(60);
    expect(new Uint32Array(values.buffer)).toEqual(expected);
  });

  it('gives the weights of Q4_0 and Q4_1 blocks made by hand', () => {
    // d = 0.5 (0x3800), m = 2 (0x4000); byte j = j in the low and 15 - j in the high nibble.
    const codes = Array.from({ length: 16 }, (_, j) => j | ((15 - j) << 4));
    const up = Array.from({ length: 16 }, (_, j) => j);
    const all = [...up, ...up.toReversed()];
    const zero = dequantize('Q4_0', Uint8Array.of(0, 0x38, ...codes));
    expect([...zero]).toEqual(all.map((code) => (code - 8) * 0.5));
    const one = dequantize('Q4_1', Uint8Array.of(0, 0x38, 0, 0x40, ...codes));
    expect([...one]).toEqual(all.map((code) => code * 0.5 + 2));
  });

  it('gives the weights of a Q8_0 block made by hand, at any byte offset', () => {
    const codes = Array.from({ length: 32 }, (_, j) => j * 8 - 128);
    const bytes = Uint8Array.of(99, 0, 0x40, ...codes).subarray(1);
    expect([...dequantize('Q8_0', bytes)]).toEqual(codes.map((code) => code * 2));
  });

  it('reads F32 at any byte offset', () => {
    const bytes = new Uint8Array(13);
    bytes.set(new Uint8Array(Float32Array.of(1.5, -0, Infinity).buffer), 1);
    expect([...dequantize('F32', bytes.subarray(1))]).toEqual([1.5, -0, Infinity]);
  });

  it('refuses bytes that are not whole blocks', () => {
    for (const type of GGML_TYPES) {
      const bytes = new Uint8Array(ggmlBlock(type).bytes + 1);
      expect(() => dequantize(type, bytes)).toThrow(
        /invalid-argument: \d+ B is not a whole number/,
      );
    }
    expect(dequantize('Q4_K', new Uint8Array(0))).toHaveLength(0);
  });
});

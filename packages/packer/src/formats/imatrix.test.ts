// Importance matrices of llama.cpp, both formats, written here byte by byte as its tools write
// them.
import { describe, expect, it } from 'vitest';
import { sampleFloats } from '../kernels/sample-matrix.js';
import { errorMetrics } from '../error-metrics.js';
import { quantizeMatrix } from '../quantize-matrix.js';
import { optRtn } from '../quantizers/opt-rtn.js';
import { buildGguf, type BuildGgufTensor } from '../testing/build-gguf.js';
import { bytesSource } from './byte-source.js';
import { ByteWriter } from './byte-writer.js';
import { importanceOf, readImatrix } from './imatrix.js';

const COLUMNS = 32;
const squares = Float32Array.from({ length: COLUMNS }, (_, i) => (i + 1) / 8);

function f32(name: string, shape: readonly number[], values: ArrayLike<number>): BuildGgufTensor {
  const bytes = new Uint8Array(Float32Array.from(values).buffer);
  return { name, type: 'F32', shape, bytes };
}

/** One dense matrix of 4 tokens, and three experts of which the middle one was never used. */
function gguf(changes: { readonly sums?: Float32Array; readonly type?: string } = {}): Uint8Array {
  const dense = changes.sums ?? squares.map((value) => 4 * value);
  const experts = [2, 0, 5].flatMap((count) => [...squares.map((value) => count * value)]);
  return buildGguf({
    metadata: {
      'general.type': changes.type ?? 'imatrix',
      'imatrix.datasets': ['calibration.txt'],
      'imatrix.chunk_count': 7,
      'imatrix.chunk_size': 512,
    },
    tensors: [
      f32('blk.0.attn_q.weight.in_sum2', [1, COLUMNS], dense),
      f32('blk.0.attn_q.weight.counts', [1, 1], [4]),
      f32('blk.0.ffn_down_exps.weight.in_sum2', [3, COLUMNS], experts),
      f32('blk.0.ffn_down_exps.weight.counts', [3, 1], [2, 0, 5]),
    ],
  });
}

/** The same as older tools write it: means times calls. */
function legacy(tail = true, calls = 4): Uint8Array {
  const writer = new ByteWriter().u32(2);
  const entry = (name: string, values: ArrayLike<number>): void => {
    const text = new TextEncoder().encode(name);
    writer.u32(text.length).bytes(text).u32(calls).u32(values.length);
    for (const value of Array.from(values)) writer.f32(value * calls);
  };
  entry('blk.0.attn_q.weight', squares);
  entry('blk.0.ffn_down_exps.weight', [...squares, ...new Float32Array(COLUMNS), ...squares]);
  const dataset = new TextEncoder().encode('calibration.txt');
  if (tail) writer.u32(7).u32(dataset.length).bytes(dataset);
  return writer.finish();
}

const read = (bytes: Uint8Array) => readImatrix(bytesSource('i.dat', bytes));

describe('checklist 17: importance of llama.cpp', () => {
  it.each([
    ['GGUF', gguf()],
    ['legacy', legacy()],
  ])('%s: mean squares of each expert, an unused one gets the prior', async (_, bytes) => {
    const imatrix = await read(bytes);
    expect(imatrix.datasets).toEqual(['calibration.txt']);
    expect(imatrix.chunkCount).toBe(7);
    const warnings: string[] = [];
    const of = (name: string, expert?: number): Float32Array | undefined =>
      importanceOf(imatrix, name, {
        columns: COLUMNS,
        priorWeight: 0.5,
        onWarning: (message) => warnings.push(message),
        ...(expert === undefined ? {} : { expert }),
      });
    expect(of('blk.0.attn_q.weight')).toEqual(squares);
    expect(of('blk.0.ffn_down_exps.weight', 2)).toEqual(squares);
    expect(warnings).toEqual([]);
    expect(of('blk.0.ffn_down_exps.weight', 1)).toEqual(new Float32Array(COLUMNS).fill(0.5));
    expect(warnings).toHaveLength(1);
    expect(of('blk.1.attn_q.weight')).toBeUndefined();
  });

  it('31: a length that does not fit is fatal, and so is an expert too many', async () => {
    const imatrix = await read(gguf());
    const invalid = expect.objectContaining({ code: 'invalid-argument' });
    const of = (columns: number, expert: number) => () =>
      importanceOf(imatrix, 'blk.0.ffn_down_exps.weight', { columns, expert });
    expect(of(48, 0)).toThrow(invalid);
    expect(of(31, 0)).toThrow(invalid);
    expect(of(COLUMNS, 3)).toThrow(invalid);
  });

  it('27: negative, infinite and NaN importance is refused by name and index', async () => {
    for (const bad of [-1, NaN, Infinity]) {
      const sums = squares.slice();
      sums[9] = bad;
      await expect(read(gguf({ sums }))).rejects.toMatchObject({
        code: 'corrupt-data',
        context: { name: 'blk.0.attn_q.weight', index: 9 },
      });
    }
  });

  it('refuses other files, and every truncation of these', async () => {
    await expect(read(gguf({ type: 'model' }))).rejects.toMatchObject({ code: 'unsupported' });
    await expect(read(new Uint8Array(0))).rejects.toMatchObject({ code: 'corrupt-data' });
    const whole = legacy();
    const ends = new Set([whole.length, legacy(false).length]);
    for (let length = 0; length < whole.length; length++) {
      if (ends.has(length)) continue;
      // The dataset may be missing behind the number of chunks.
      if (length === legacy(false).length + 4) continue;
      await expect(read(whole.slice(0, length))).rejects.toMatchObject({ code: 'corrupt-data' });
    }
    const long = read(Uint8Array.from([...whole, 1]));
    await expect(long).rejects.toMatchObject({ code: 'corrupt-data' });
    expect((await read(legacy(false))).chunkCount).toBeUndefined();
    // Calls of 0: the values are the means.
    expect((await read(legacy(true, 1))).entries.get('blk.0.attn_q.weight')?.means).toEqual(
      squares,
    );
  });

  it('weighs errors where a quantizer searches', async () => {
    const importance = importanceOf(await read(gguf()), 'blk.0.attn_q.weight', {
      columns: COLUMNS,
    });
    const values = sampleFloats(40 * COLUMNS, 3);
    const options = {
      name: 'w',
      rows: 40,
      columns: COLUMNS,
      bits: 2,
      quantizer: optRtn(),
    } as const;
    const of = (given?: Float32Array): number =>
      errorMetrics(quantizeMatrix(values, { ...options, importance: given }), values, importance)
        .weightedMse;
    expect(of(importance)).toBeLessThan(0.97 * of());
  });
});

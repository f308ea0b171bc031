/**
 * Values of GGUF blocks: the definition that conversions and kernels are checked against.
 *
 * Written for reading, one block type after the other, in the order of the bytes. `d`, `m` and
 * `dmin` are f16. Blocks of 32 weights:
 *
 *     Q4_0  d, 16 bytes             value = (code - 8) d     byte j: weight j low, j + 16 high
 *     Q4_1  d, m, 16 bytes          value = code d + m
 *     Q5_0  d, 32 fifth bits, 16    value = (code - 16) d    bit j: fifth bit of weight j
 *     Q5_1  d, m, 32 fifth bits, 16 value = code d + m
 *     Q8_0  d, 32 signed bytes      value = code d
 *
 * Blocks of 256 weights are in `ggml-k-blocks.ts`. Every product below is exact in f64 and
 * rounded once when it is stored as f32, which gives the bits that llama.cpp computes in f32.
 *
 * Source: the block layouts of ggml (llama.cpp).
 */
import { f16ToF32, fail } from '@vramkit/core';
import { denseToF32 } from './dense.js';
import { q2K, q3K, q4K, q5K, q6K } from './ggml-k-blocks.js';
import { ggmlBlock, type BlockDequantizer, type GgmlType } from './ggml-types.js';

function half(view: DataView, at: number): number {
  return f16ToF32(view.getUint16(at, true));
}

const q4Zero: BlockDequantizer = (view, at, out, to) => {
  const d = half(view, at);
  for (let j = 0; j < 16; j++) {
    const byte = view.getUint8(at + 2 + j);
    out[to + j] = ((byte & 15) - 8) * d;
    out[to + j + 16] = ((byte >> 4) - 8) * d;
  }
};

const q4One: BlockDequantizer = (view, at, out, to) => {
  const d = half(view, at);
  const m = half(view, at + 2);
  for (let j = 0; j < 16; j++) {
    const byte = view.getUint8(at + 4 + j);
    out[to + j] = (byte & 15) * d + m;
    out[to + j + 16] = (byte >> 4) * d + m;
  }
};

const q5Zero: BlockDequantizer = (view, at, out, to) => {
  const d = half(view, at);
  const fifth = view.getUint32(at + 2, true);
  for (let j = 0; j < 16; j++) {
    const byte = view.getUint8(at + 6 + j);
    out[to + j] = ((byte & 15) + 16 * ((fifth >>> j) & 1) - 16) * d;
    out[to + j + 16] = ((byte >> 4) + 16 * ((fifth >>> (j + 16)) & 1) - 16) * d;
  }
};

const q5One: BlockDequantizer = (view, at, out, to) => {
  const d = half(view, at);
  const m = half(view, at + 2);
  const fifth = view.getUint32(at + 4, true);
  for (let j = 0; j < 16; j++) {
    const byte = view.getUint8(at + 8 + j);
    out[to + j] = ((byte & 15) + 16 * ((fifth >>> j) & 1)) * d + m;
    out[to + j + 16] = ((byte >> 4) + 16 * ((fifth >>> (j + 16)) & 1)) * d + m;
  }
};

const q8Zero: BlockDequantizer = (view, at, out, to) => {
  const d = half(view, at);
  for (let j = 0; j < 32; j++) out[to + j] = view.getInt8(at + 2 + j) * d;
};

const DEQUANTIZERS: Readonly<Record<Exclude<GgmlType, 'F32' | 'F16' | 'BF16'>, BlockDequantizer>> =
  {
    Q4_0: q4Zero,
    Q4_1: q4One,
    Q5_0: q5Zero,
    Q5_1: q5One,
    Q8_0: q8Zero,
    Q2_K: q2K,
    Q3_K: q3K,
    Q4_K: q4K,
    Q5_K: q5K,
    Q6_K: q6K,
  };

/**
 * The f32 values of whole blocks.
 *
 * A definition, not a fast path: tens of millions of weights a second.
 * @throws VramError `invalid-argument` where `bytes` is not a whole number of blocks.
 */
export function dequantize(type: GgmlType, bytes: Uint8Array): Float32Array<ArrayBuffer> {
  if (type === 'F32' || type === 'F16' || type === 'BF16') return denseToF32(type, bytes);
  const block = ggmlBlock(type);
  const count = bytes.byteLength / block.bytes;
  if (!Number.isInteger(count)) {
    fail('invalid-argument', `${bytes.byteLength} B is not a whole number of ${type} blocks`, {
      type,
      sizeBytes: bytes.byteLength,
      blockBytes: block.bytes,
    });
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Float32Array(count * block.weights);
  const write = DEQUANTIZERS[type];
  for (let i = 0; i < count; i++) write(view, i * block.bytes, out, i * block.weights);
  return out;
}

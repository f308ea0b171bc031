/**
 * The affine packed matrix: one layout on the device for every quantized block type of GGUF.
 *
 * For a matrix of `rows` x `columns`, row-major, structure of arrays:
 *
 *     codes   u32 words; code k of a row is in word floor(k bits / 32) at shift (k bits) mod 32
 *     scales  u32 per group of `groupSize` consecutive columns: f16 scale low, f16 min high
 *     value = scale * code + min, code unsigned
 *
 * GGUF stores scales inside each block, at sizes (18, 22, 34, 110, 210 bytes) that a shader
 * cannot load in aligned words, and every type orders its codes differently. Here one kernel per
 * code width reads all of them, and consecutive invocations read consecutive words.
 *
 *     type          bits  group  conversion
 *     Q4_0, Q5_0    4, 8    32   exact: min = -8 d, -16 d
 *     Q4_1, Q5_1    4, 8    32   exact
 *     Q8_0             8    32   exact: code + 128, min = -128 d
 *     Q2_K             4    16   scale and min rounded to f16
 *     Q4_K, Q5_K    4, 8    32   scale and min rounded to f16
 *     Q3_K, Q6_K    4, 8    16   scale rounded to f16, min = -4 or -32 times it, so 0 stays 0
 *
 * A product of an f16 factor and a 4- to 8-bit integer has up to 19 significant bits and f16
 * keeps 11, so the rounded types are off by at most 2^-11 of each product (2^-25 where it is
 * subnormal); the codes themselves are always kept. On weights of a language model
 * that is a relative error of 2e-4 to 7e-4, a 25th or less of what the quantization itself lost.
 * "Exact" is the same f32 number, but that a zero may lose its sign.
 */
import { assertArgument, f16ToF32 } from '@vramkit/core';
import { unpackQ4, unpackQ5, unpackQ8 } from './affine-blocks.js';
import { unpackQ2K, unpackQ3K, unpackQ45K, unpackQ6K } from './affine-k-blocks.js';
import { BlockPacker } from './affine-packer.js';
import type { DenseType } from './dense.js';
import { ggmlBlock, type GgmlType } from './ggml-types.js';

/** Block types that {@link toAffine} converts. */
export type QuantizedType = Exclude<GgmlType, DenseType>;

/** Code width, group and exactness of a converted block type. */
export interface AffineFormat {
  /** Bits of one code. */
  readonly bits: 4 | 8;
  /** Consecutive columns that share a scale and a min. */
  readonly groupSize: 16 | 32;
  /** Whether converted values are the block's values as f32 numbers. */
  readonly exact: boolean;
}

/** A packed matrix in host memory, in the layout of this file's head comment. */
export interface AffineMatrix {
  readonly rows: number;
  readonly columns: number;
  /** Bits of one code. */
  readonly bits: 4 | 8;
  /** Consecutive columns that share a scale and a min. */
  readonly groupSize: 16 | 32;
  /** `[rows, columns * bits / 32]` words. */
  readonly codes: Uint32Array;
  /** `[rows, columns / groupSize]` pairs of f16: scale in the low half, min in the high half. */
  readonly scales: Uint32Array;
}

interface Conversion extends AffineFormat {
  readonly unpack: (packer: BlockPacker) => void;
}

const CONVERSIONS: Readonly<Record<QuantizedType, Conversion>> = {
  Q4_0: { bits: 4, groupSize: 32, exact: true, unpack: (packer) => unpackQ4(packer, false) },
  Q4_1: { bits: 4, groupSize: 32, exact: true, unpack: (packer) => unpackQ4(packer, true) },
  Q5_0: { bits: 8, groupSize: 32, exact: true, unpack: (packer) => unpackQ5(packer, false) },
  Q5_1: { bits: 8, groupSize: 32, exact: true, unpack: (packer) => unpackQ5(packer, true) },
  Q8_0: { bits: 8, groupSize: 32, exact: true, unpack: unpackQ8 },
  Q2_K: { bits: 4, groupSize: 16, exact: false, unpack: unpackQ2K },
  Q3_K: { bits: 4, groupSize: 16, exact: false, unpack: unpackQ3K },
  Q4_K: { bits: 4, groupSize: 32, exact: false, unpack: (packer) => unpackQ45K(packer, false) },
  Q5_K: { bits: 8, groupSize: 32, exact: false, unpack: (packer) => unpackQ45K(packer, true) },
  Q6_K: { bits: 8, groupSize: 16, exact: false, unpack: unpackQ6K },
};

/** Code width, group and exactness of `type` after {@link toAffine}. */
export function affineFormat(type: QuantizedType): AffineFormat {
  const { bits, groupSize, exact } = CONVERSIONS[type];
  return { bits, groupSize, exact };
}

/**
 * Converts whole rows of GGUF blocks; call it for a range of rows at a time to bound host memory.
 *
 * The result takes at most 1.8 times the bytes of the input (2.3 times for Q2_K).
 * @throws VramError `invalid-argument` where `bytes` is not `rows` rows of `columns` weights;
 * `corrupt-data` for a factor that is NaN or infinite; `unsupported` where a scale or min is
 * above the f16 range. The last two name row and column.
 */
export function toAffine(
  type: QuantizedType,
  bytes: Uint8Array,
  rows: number,
  columns: number,
): AffineMatrix {
  const block = ggmlBlock(type);
  const blocks = (rows * columns) / block.weights;
  assertArgument(
    columns % block.weights === 0 && blocks * block.bytes === bytes.byteLength,
    `${bytes.byteLength} B is not ${rows} x ${columns} weights of ${type}`,
    { type, rows, columns, sizeBytes: bytes.byteLength },
  );
  const { bits, groupSize, unpack } = CONVERSIONS[type];
  const codes = new Uint32Array((rows * columns * bits) / 32);
  const scales = new Uint32Array((rows * columns) / groupSize);
  unpack(new BlockPacker(type, bytes, { columns, codes, scales }));
  return { rows, columns, bits, groupSize, codes, scales };
}

/**
 * The f32 values of a packed matrix, row-major: the definition of the layout for tests and small
 * uses. Each value is rounded once, as a fused or an unfused multiply-add in f32 gives.
 */
export function affineValues(matrix: AffineMatrix): Float32Array<ArrayBuffer> {
  const { rows, columns, bits, groupSize, codes, scales } = matrix;
  const out = new Float32Array(rows * columns);
  const perWord = 32 / bits;
  const mask = bits === 4 ? 15 : 255;
  for (let i = 0; i < out.length; i++) {
    const word = codes[Math.floor(i / perWord)] ?? 0;
    const code = (word >>> (bits * (i % perWord))) & mask;
    const pair = scales[Math.floor(i / groupSize)] ?? 0;
    out[i] = f16ToF32(pair & 0xffff) * code + f16ToF32(pair >>> 16);
  }
  return out;
}

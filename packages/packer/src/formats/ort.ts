/**
 * Repacking to and from MatMulNBits of ONNX Runtime: the same codes, scales and zero points in
 * another order, bit for bit.
 *
 *     B            u8 [rows, groups, groupSize * bits / 8], codes lowest first along the columns
 *     scales       [rows, groups], in the activations' type
 *     zero points  u8 [rows, ceil(groups * bits / 8)], lowest first; absent: 2^(bits-1) everywhere
 *
 * A zero point other than a power of two times the scale need not fit f16, which is what a minimum
 * here is: such values differ by up to 2^-12 of the minimum, and the way back restores scale and
 * zero point exactly. MatMulNBits has no float zero points and no 3 bits. Compact factors
 * become scales and zero points too, where every group's zero point is a whole code.
 */
import { assertArgument, f16ToF32, f32ToF16, fail } from '@vramkit/core';
import { packRows, unpackRows } from '../code-words.js';
import { factorCodec } from '../factor-codec.js';
import { hostMatrix, type HostMatrix } from '../kernels/host-matrix.js';
import { affineMatrixFormat, matrixLayout } from '../matrix-layout.js';
import { groupWord, scaleOf } from '../quantizers/group-codes.js';
import { zeroPointOf } from '../quantizers/rtn.js';

/** The tensors of a MatMulNBits operator, and its attributes. */
export interface MatMulNBits {
  /** Attribute N. */
  readonly rows: number;
  /** Attribute K, a multiple of `groupSize` here. */
  readonly columns: number;
  readonly bits: 2 | 4 | 8;
  /** Attribute block_size. */
  readonly groupSize: number;
  /** B. */
  readonly codes: Uint8Array;
  /** Scales as f16 bit patterns. */
  readonly scales: Uint16Array;
  /** Zero points as packed bytes. Default: 2^(bits-1) everywhere. */
  readonly zeroPoints?: Uint8Array | undefined;
}

/** Writes unsigned fields of `bits`, lowest first, each row from a byte of its own. */
function packFields(fields: Uint8Array, perRow: number, bits: number): Uint8Array {
  const rows = fields.length / perRow;
  const rowBytes = Math.ceil((perRow * bits) / 8);
  const bytes = new Uint8Array(rows * rowBytes);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < perRow; i++) {
      const at = row * rowBytes + Math.floor((i * bits) / 8);
      bytes[at] = (bytes[at] ?? 0) | ((fields[row * perRow + i] ?? 0) << ((i * bits) % 8));
    }
  }
  return bytes;
}

function unpackFields(bytes: Uint8Array, perRow: number, bits: number): Uint8Array {
  const rowBytes = Math.ceil((perRow * bits) / 8);
  const rows = bytes.length / rowBytes;
  const fields = new Uint8Array(rows * perRow);
  for (let i = 0; i < fields.length; i++) {
    const column = i % perRow;
    const byte = bytes[Math.floor(i / perRow) * rowBytes + Math.floor((column * bits) / 8)] ?? 0;
    fields[i] = (byte >>> ((column * bits) % 8)) & (2 ** bits - 1);
  }
  return fields;
}

/**
 * A packed matrix as MatMulNBits reads it.
 * @throws VramError `unsupported` for 3 bits, dense matrices and groups without an integer zero
 * point, with the first such row and column.
 */
export function toMatMulNBits(matrix: HostMatrix): MatMulNBits {
  const { rows, columns, bits, groupSize, format } = matrix.layout;
  if (bits !== 2 && bits !== 4 && bits !== 8) {
    return fail('unsupported', `MatMulNBits has no ${format}`, { format });
  }
  const { codes, factors } = unpackRows(matrix.layout, matrix);
  const codec = factorCodec(matrix.layout.factors, bits);
  const zeroPoints = Uint8Array.from(factors, (word, group) => {
    const zeroPoint = zeroPointOf(codec, word, 2 ** bits - 1);
    if (zeroPoint !== undefined) return zeroPoint;
    const row = Math.floor((group * groupSize) / columns);
    const column = (group * groupSize) % columns;
    const place = `row ${row} column ${column}`;
    return fail('unsupported', `the group at ${place} has no integer zero point`, { row, column });
  });
  const middle = 2 ** (bits - 1);
  const isDefault = zeroPoints.every((zeroPoint, i) => zeroPoint === middle || factors[i] === 0);
  return {
    rows,
    columns,
    bits,
    groupSize,
    codes: packFields(codes, columns, bits),
    // A compact scale is an f16 too.
    scales: Uint16Array.from(factors, (word) => f32ToF16(codec.scaleOf(word))),
    zeroPoints: isDefault ? undefined : packFields(zeroPoints, columns / groupSize, bits),
  };
}

/**
 * MatMulNBits' tensors as a packed matrix.
 * @throws VramError `invalid-argument` for tensors of other sizes; `unsupported` where a minimum is
 * above the f16 range.
 */
export function fromMatMulNBits(source: MatMulNBits): HostMatrix {
  const { rows, columns, bits, groupSize, scales } = source;
  const shape = { rows, columns, format: affineMatrixFormat(bits), groupSize };
  const layout = matrixLayout(shape);
  const groups = columns / groupSize;
  const zeroPointBytes = rows * Math.ceil((groups * bits) / 8);
  assertArgument(
    source.codes.length === (rows * columns * bits) / 8 &&
      scales.length === rows * groups &&
      (source.zeroPoints?.length ?? zeroPointBytes) === zeroPointBytes,
    `the tensors are not those of ${rows} x ${columns} in ${bits} bits`,
    { rows, columns, bits, groupSize },
  );
  const zeroPoints =
    source.zeroPoints === undefined
      ? new Uint8Array(rows * groups).fill(2 ** (bits - 1))
      : unpackFields(source.zeroPoints, groups, bits);
  const codes = unpackFields(source.codes, columns, bits);
  const factors = Uint32Array.from(scales, (half, i) => {
    const scale = f16ToF32(half);
    assertArgument(Number.isFinite(scale), `scale ${i} is ${scale}`, { index: i });
    return scale === 0 ? 0 : groupWord(scale, -(zeroPoints[i] ?? 0) * scale);
  });
  return hostMatrix(shape, packRows(layout, { codes, factors }));
}

/** The values of MatMulNBits' tensors, [rows, columns], in f32 as the operator dequantizes. */
export function matMulNBitsValues(source: MatMulNBits): Float32Array<ArrayBuffer> {
  const { columns, bits, groupSize, scales } = source;
  const groups = columns / groupSize;
  const codes = unpackFields(source.codes, columns, bits);
  const zeroPoints =
    source.zeroPoints === undefined ? undefined : unpackFields(source.zeroPoints, groups, bits);
  return Float32Array.from(codes, (code, i) => {
    const group = Math.floor(i / groupSize);
    const zeroPoint = zeroPoints?.[group] ?? 2 ** (bits - 1);
    return (code - zeroPoint) * scaleOf(scales[group] ?? 0);
  });
}

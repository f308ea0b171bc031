/**
 * Seeded matrices, activations and comparison for the kernel tests of this package; not shipped.
 */
import { createTensor, f32ToBf16, f32ToF16, Uploader } from '@vramkit/core';
import type { HostArray, Tensor, VramDevice } from '@vramkit/core';
import { packRows } from '../code-words.js';
import { factorCodec } from '../factor-codec.js';
import {
  isAffine,
  type CodeBits,
  type GroupSize,
  type MatrixFormat,
  type MatrixShape,
} from '../matrix-layout.js';
import { createMatrix, type DeviceMatrix } from '../matrix.js';
import { seededRandom as seeded } from '../scorers/seeded-random.js';
import { hostMatrix, type HostMatrix } from './host-matrix.js';

/** Every storage: format and group size. */
export const STORAGES: readonly {
  readonly format: MatrixFormat;
  readonly groupSize?: GroupSize;
}[] = [
  { format: 'f32' },
  { format: 'f16' },
  { format: 'bf16' },
  { format: 'affine2', groupSize: 32 },
  { format: 'affine3', groupSize: 32 },
  { format: 'affine4', groupSize: 16 },
  { format: 'affine4', groupSize: 32 },
  { format: 'affine8', groupSize: 16 },
  { format: 'affine8', groupSize: 32 },
];

/** Group sizes beside those: 16 of narrow codes, several steps, whole rows. */
export const OTHER_GROUPS: readonly (MatrixShape & { readonly groupSize: GroupSize })[] = [
  { format: 'affine2', groupSize: 16, rows: 33, columns: 96 },
  { format: 'affine3', groupSize: 16, rows: 33, columns: 64 },
  { format: 'affine4', groupSize: 64, rows: 33, columns: 192 },
  { format: 'affine3', groupSize: 128, rows: 33, columns: 256 },
  { format: 'affine2', groupSize: 96, rows: 33, columns: 96 },
  { format: 'affine8', groupSize: 160, rows: 33, columns: 160 },
];

/**
 * Compact factors at every width: groups below, of and above a step, even and odd numbers of them,
 * a whole row; with four and eight bits also steps of half the size.
 */
export const COMPACT: readonly (MatrixShape & { readonly groupSize: GroupSize })[] = (
  ['affine2', 'affine3', 'affine4', 'affine8'] as const
).flatMap((format) => {
  const sizes: [groupSize: GroupSize, columns: number][] = [
    [16, 96],
    [32, 128],
    [32, 96],
    [32, 32],
    [64, 256],
    [64, 192],
    [128, 384],
    [160, 160],
  ];
  if (format === 'affine4' || format === 'affine8') sizes.push([16, 48], [16, 80]);
  return sizes.map(([groupSize, columns]) => {
    return { format, groupSize, rows: 33, columns, factors: 'compact' as const };
  });
});

/** Floats in [-1, 1). */
export function sampleFloats(count: number, seed: number): Float32Array {
  const next = seeded(seed);
  return Float32Array.from({ length: count }, () => 2 * next() - 1);
}

/** A matrix of values around [-1, 1] in any storage. */
export function sampleMatrix(shape: MatrixShape, seed: number): HostMatrix {
  const next = seeded(seed);
  const { layout } = hostMatrix(shape, { codes: new Uint32Array() });
  const { rows, columns, format, bits } = layout;
  if (isAffine(format)) {
    const codes = Uint8Array.from({ length: rows * columns }, () => next() * 2 ** bits);
    const groups = (rows * columns) / layout.groupSize;
    // An affine format has the bits of a code.
    const codec = factorCodec(layout.factors, bits as CodeBits);
    const factors = Uint32Array.from({ length: groups }, () => {
      const scale = (0.5 + next()) * 2 ** (1 - bits);
      const minimum = -scale * 2 ** (bits - 1) * (0.9 + 0.2 * next());
      return codec.wordOf(scale, minimum);
    });
    return hostMatrix(shape, packRows(layout, { codes, factors }));
  }
  const values = sampleFloats(rows * columns, seed);
  const narrow = format === 'f16' ? f32ToF16 : f32ToBf16;
  const elements = format === 'f32' ? values : Uint16Array.from(values, narrow);
  return hostMatrix(shape, { codes: new Uint32Array(elements.buffer) });
}

/** Uploads a host matrix; the caller disposes it. */
export async function deviceMatrix(device: VramDevice, host: HostMatrix): Promise<DeviceMatrix> {
  const { rows, columns, format, groupSize, factors } = host.layout;
  const group = groupSize === 0 ? {} : { groupSize, factors };
  const matrix = createMatrix(device, { rows, columns, format, ...group, label: 'weights' });
  using uploader = new Uploader(device, { method: 'write-buffer' });
  const { codes, scales } = host;
  if (isAffine(format)) await matrix.upload(uploader, 0, { codes, scales });
  else {
    const dense = format === 'f32' ? new Float32Array(codes.buffer) : new Uint16Array(codes.buffer);
    await matrix.upload(uploader, 0, { dense });
  }
  return matrix;
}

/** A tensor of one dimension holding `data`; the caller disposes it. */
export function deviceTensor(device: VramDevice, data: HostArray, label: string): Tensor {
  const dtype = data instanceof Uint32Array ? 'u32' : 'f32';
  const shape = [data.length];
  const tensor = createTensor(device, { dtype, shape, kind: 'activations', label });
  tensor.write(data);
  return tensor;
}

/**
 * The largest error in units of the tolerance: at most 1 passes. A sum of `terms` products of
 * magnitude up to about 2 in f32 is off by less than `terms` roundings of a partial sum:
 * tolerance = 1e-6 + 2^-23 * terms.
 */
export function worstError(actual: HostArray, expected: Float32Array, terms: number): number {
  const tolerance = 1e-6 + terms * 2 ** -23;
  let worst = actual.length === expected.length ? 0 : Infinity;
  expected.forEach((value, i) => {
    const error = Math.abs((actual[i] ?? NaN) - value) / tolerance;
    if (!(error <= worst)) worst = Number.isNaN(error) ? Infinity : error;
  });
  return worst;
}

/**
 * What ways of storing leave of a matrix, and the bytes that they take: ours, and the types of
 * llama.cpp by ggml itself.
 *
 * Results of the searching quantizer are kept in files, because mixed widths use them again and
 * again.
 */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ProductPeer } from '@vramkit/bench';
import {
  matrixBytes,
  matrixLayout,
  affineMatrixFormat,
  matrixValues,
  quantizeMatrix,
  type CodeBits,
  type FactorFormat,
  type GroupChoice,
  type Quantizer,
} from '@vramkit/packer';
import type { Replaceable } from './replaceable-model.js';

/** A width with its groups. */
export interface Width {
  readonly bits: CodeBits;
  /** Made smaller where it does not divide a row. */
  readonly groupSize: GroupChoice;
  /** How scales and minimums are stored. Default: 'f16'. */
  readonly factors?: FactorFormat;
}

/** Values as stored, [rows, columns], and the bytes with scales, minimums and padding. */
export interface Stored {
  readonly values: Float32Array;
  readonly bytes: number;
}

/** `2 bits / 64`, or `2 bits / 64 compact`. */
export const widthName = ({ bits, groupSize, factors = 'f16' }: Width): string =>
  `${bits} bits / ${groupSize}${factors === 'f16' ? '' : ` ${factors}`}`;

function groupOf(columns: number, choice: GroupChoice): number {
  if (choice === 'row') return columns;
  return [choice, 64, 32, 16].find((size) => size <= choice && columns % size === 0) ?? columns;
}

/** Bytes of a matrix at a width, everything counted. */
export function storedBytes({ rows, columns }: Replaceable, width: Width): number {
  const { bits, factors } = width;
  const groupSize = groupOf(columns, width.groupSize);
  const format = affineMatrixFormat(bits);
  return matrixBytes(matrixLayout({ rows, columns, format, groupSize, factors }));
}

/** Packs a matrix and reads back what is stored. */
export function packed(
  tensor: Replaceable,
  width: Width,
  quantizer: Quantizer,
  moments?: Float64Array,
): Stored {
  const { name, rows, columns, values } = tensor;
  const options = { name, rows, columns, ...width, quantizer, moments } as const;
  const matrix = quantizeMatrix(values, { ...options, unevenGroups: 'smaller' });
  return { values: matrixValues(matrix), bytes: matrixBytes(matrix.layout) };
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

async function readFloats(path: string): Promise<Float32Array> {
  return new Float32Array(Uint8Array.from(await readFile(path)).buffer);
}

/** {@link packed} with its values kept in `folder`; moments are asked for where they are used. */
export async function packedOnce(
  folder: string,
  tensor: Replaceable,
  width: Width,
  quantizer: Quantizer,
  moments?: () => Promise<Float64Array>,
): Promise<Stored> {
  const own = join(folder, `${quantizer.name} ${widthName(width)}`.replaceAll(/[^\w]+/g, '-'));
  const path = join(own, `${tensor.name}.f32`);
  const bytes = storedBytes(tensor, width);
  try {
    return { values: await readFloats(path), bytes };
  } catch {
    await mkdir(own, { recursive: true });
    const stored = packed(tensor, width, quantizer, await moments?.());
    await writeFile(`${path}.part`, bytesOf(stored.values));
    await rename(`${path}.part`, path);
    return stored;
  }
}

/** Weights of a k-quant block. */
const blockWeights = 256;

/** Stores a matrix by ggml. Rows need not be whole blocks: blocks are filled row after row. */
export async function storedByGgml(
  peer: ProductPeer,
  folder: string,
  tensor: Replaceable,
  type: string,
): Promise<Stored> {
  const [input, output] = [join(folder, 'weights.f32'), join(folder, 'stored.f32')];
  const rows = tensor.values.length / blockWeights;
  await mkdir(folder, { recursive: true });
  await writeFile(input, bytesOf(tensor.values));
  const request = { type, rows, columns: blockWeights, input, output };
  const { sizeBytes } = await peer.ask('quantize', request);
  return { values: await readFloats(output), bytes: sizeBytes };
}

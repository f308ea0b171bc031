/**
 * Rows of a model file as the device stores them.
 */
import {
  denseToF32,
  readPackedTensors,
  toAffine,
  type MatrixFormat,
  type MatrixRows,
} from '@vramkit/packer';
import type { ModelTensor } from './model-file.js';

/** Parts one below the other. */
export function joinRows(parts: readonly MatrixRows[]): MatrixRows {
  const join = <T extends Uint32Array | Uint16Array | Float32Array>(arrays: readonly T[]): T => {
    const [first] = arrays;
    if (first === undefined) throw new RangeError('there are no rows to join');
    const size = arrays.reduce((sum, array) => sum + array.length, 0);
    // The constructor of a typed array makes another of its kind.
    const whole = new (first.constructor as new (size: number) => T)(size);
    let at = 0;
    for (const array of arrays) {
      whole.set(array, at);
      at += array.length;
    }
    return whole;
  };
  const words = parts.flatMap((part) => ('codes' in part ? part : []));
  if (words.length === parts.length) {
    return {
      codes: join(words.map(({ codes }) => codes)),
      scales: join(words.map(({ scales }) => scales)),
    };
  }
  return { dense: join(parts.flatMap((part) => ('dense' in part ? part.dense : []))) };
}

/** Rows of a file in the device's format. */
export function convertRows(
  source: ModelTensor,
  bytes: Uint8Array,
  rows: number,
  format: MatrixFormat,
): MatrixRows {
  const { type } = source;
  if (type !== 'F32' && type !== 'F16' && type !== 'BF16') {
    return toAffine(type, bytes, rows, source.columns);
  }
  // 16-bit patterns that stay what they are need no widening; the copy aligns them.
  const asIs = (type === 'F16' && format === 'f16') || (type === 'BF16' && format === 'bf16');
  return { dense: asIs ? new Uint16Array(bytes.slice().buffer) : denseToF32(type, bytes) };
}

/**
 * The words of whole packed tensors, by one read where they are neighbours; each is compared with
 * its checksum. Nothing where one of them is not packed, or is in another file.
 * @throws VramError `corrupt-data` naming the tensor.
 */
export async function packedRows(
  parts: readonly ModelTensor[],
  signal?: AbortSignal,
): Promise<MatrixRows[] | undefined> {
  const file = parts[0]?.packed?.file;
  if (file === undefined || parts.some(({ packed }) => packed?.file !== file)) return undefined;
  const names = parts.map(({ storedName }) => storedName);
  const found = await readPackedTensors(file, names, signal === undefined ? {} : { signal });
  // Sections are copies of their own, so their words are aligned.
  const words = (bytes: Uint8Array | undefined): Uint32Array =>
    new Uint32Array(bytes?.buffer ?? new ArrayBuffer(0));
  return names.map((name) => {
    const [codes, scales] = found.get(name) ?? [];
    return { codes: words(codes), scales: words(scales) };
  });
}

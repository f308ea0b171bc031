/**
 * Rows of a model file as the device stores them.
 */
import { denseToF32, toAffine, type MatrixFormat, type MatrixRows } from '@vramkit/packer';
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

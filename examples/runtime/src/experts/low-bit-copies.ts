/**
 * Copies of experts in few bits, made once from the full ones and kept in host memory: what takes
 * an expert's place when it is not on the device and counts for little.
 *
 * Rounded to nearest: quantizers that search take 5 to 50 times as long to load and lose as much,
 * because such an expert adds little to begin with.
 */
import { denseToF32, dequantize, quantizeMatrix, rtn, type CodeBits } from '@vramkit/packer';
import type { MatrixRows } from '@vramkit/packer';
import { joinRows } from '../matrix-rows.js';
import type { ModelTensor } from '../model-file.js';

/** Weights that share a scale: the smallest group, since few bits need it the most. */
export const LOW_BIT_GROUP = 32;

/** One matrix of an expert, its parts one below the other, in `bits`. */
export async function lowBitCopy(
  parts: readonly ModelTensor[],
  bits: CodeBits,
  signal?: AbortSignal,
): Promise<MatrixRows> {
  const rows: MatrixRows[] = [];
  for (const { storedName: name, type, rows: count, columns, read } of parts) {
    const bytes = await read(0, count, signal);
    const values =
      type === 'F32' || type === 'F16' || type === 'BF16'
        ? denseToF32(type, bytes)
        : dequantize(type, bytes);
    const options = { name, rows: count, columns, bits, groupSize: LOW_BIT_GROUP } as const;
    const { codes, scales } = quantizeMatrix(values, { ...options, quantizer: rtn() });
    rows.push({ codes, scales });
  }
  return joinRows(rows);
}

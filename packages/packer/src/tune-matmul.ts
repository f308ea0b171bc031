/**
 * Measures which kernels a device multiplies with fastest, instead of going by what it says of
 * itself.
 */
import { Batch, createTensor, Uploader, type Tensor, type VramDevice } from '@vramkit/core';
import { sharedLanes, type MatmulTuning } from './matmul-tuning.js';
import { matmul } from './matmul.js';
import { createMatrix } from './matrix.js';

/** Options of {@link tuneMatmul}. */
export interface TuneMatmulOptions {
  /** Clock in milliseconds. Default: `performance.now`. */
  readonly now?: () => number;
  /** Stops between measurements. */
  readonly signal?: AbortSignal;
}

const ROWS = 512;
const COLUMNS = 512;
const X_ROWS = 64;
const SAMPLES = 4;

/**
 * Times the shapes on a small 4-bit product and gives the faster for each use. Takes 0.5 MB of
 * device memory while it runs, and as long as the compilation of four kernels.
 * @throws VramError `out-of-memory`, `aborted`, `device-lost`.
 */
export async function tuneMatmul(
  device: VramDevice,
  options: TuneMatmulOptions = {},
): Promise<MatmulTuning> {
  if (sharedLanes(device) === 0) return { vector: 'split', matrix: 'tiled' };
  const weights = createMatrix(device, {
    rows: ROWS,
    columns: COLUMNS,
    format: 'affine4',
    label: 'tuning weights',
  });
  const taken: Tensor[] = [];
  const take = (label: string, columns: number): Tensor => {
    const shape = [X_ROWS, columns];
    const tensor = createTensor(device, { dtype: 'f32', shape, kind: 'activations', label });
    taken.push(tensor);
    return tensor;
  };
  const { codeWordsPerRow, scaleWordsPerRow } = weights.layout;
  const uploader = new Uploader(device, { method: 'write-buffer' });
  try {
    const codes = new Uint32Array(ROWS * codeWordsPerRow).fill(0x76543210);
    const scales = new Uint32Array(ROWS * scaleWordsPerRow).fill(0xa0002000);
    await weights.upload(uploader, 0, { codes, scales }, options);
    const x = take('tuning x', COLUMNS);
    const y = take('tuning y', ROWS);
    const time = async (xRows: number, repeats: number, tuning: MatmulTuning): Promise<number> => {
      const now = options.now ?? (() => performance.now());
      let best = Infinity;
      // The first sample compiles the kernel and is not counted.
      for (let sample = 0; sample <= SAMPLES; sample++) {
        options.signal?.throwIfAborted();
        const batch = new Batch(device, 'tuning');
        const start = now();
        for (let i = 0; i < repeats; i++) matmul(batch, { x, xRows, weights, y, tuning });
        batch.submit();
        await device.settle();
        if (sample > 0) best = Math.min(best, now() - start);
      }
      return best;
    };
    const lanes = { vector: 'lanes', matrix: 'lanes' } as const;
    const gpu = { vector: 'split', matrix: 'tiled' } as const;
    const vector = (await time(1, 16, lanes)) < (await time(1, 16, gpu)) ? 'lanes' : 'split';
    const matrix =
      (await time(X_ROWS, 1, lanes)) < (await time(X_ROWS, 1, gpu)) ? 'lanes' : 'tiled';
    return { vector, matrix };
  } finally {
    uploader.dispose();
    weights.dispose();
    for (const tensor of taken) tensor.dispose();
  }
}

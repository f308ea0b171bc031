/**
 * Which kernel a device multiplies with: a choice among three shapes, made once per device.
 *
 * - `lanes`: each lane owns columns and walks all of k; x by subgroup broadcast, no barrier.
 * - `split`: one row of x; the invocations of a workgroup share the k of a few columns.
 * - `tiled`: many rows of x; tiles of both operands in workgroup memory.
 *
 * A GPU wants `split` and `tiled`. A device whose invocations are lanes of a CPU core wants `lanes`: there
 * a barrier is a switch between coroutines and workgroup memory is ordinary memory. The default goes by
 * what WebGPU says of the adapter; {@link tuneMatmul} measures instead.
 */
import { Batch, createTensor, Uploader, type Tensor, type VramDevice } from '@vramkit/core';
import { matmul } from './matmul.js';
import { createMatrix } from './matrix.js';

/** The kernels to multiply with; plain data, good for one device. */
export interface MatmulTuning {
  /** For one row of x, and for rows of different experts. */
  readonly vector: 'lanes' | 'split';
  /** For more rows. */
  readonly matrix: 'lanes' | 'tiled';
}

/** Lanes that share loads in the shape `lanes`: 8 or 4, or 0 where the device lacks subgroups. */
export function sharedLanes(device: VramDevice): 0 | 4 | 8 {
  if (!device.features.has('subgroups')) return 0;
  const smallest = adapterInfo(device)?.subgroupMinSize ?? 4;
  return smallest >= 8 ? 8 : 4;
}

function adapterInfo(device: VramDevice): Partial<GPUAdapterInfo> | undefined {
  // Devices of older implementations have no such member.
  return device.gpuDevice.adapterInfo as GPUAdapterInfo | undefined;
}

/** The choice where nothing was measured: `lanes` on a fallback (CPU) adapter, else the GPU's shapes. */
export function defaultMatmulTuning(device: VramDevice): MatmulTuning {
  const lanes = sharedLanes(device) > 0 && adapterInfo(device)?.isFallbackAdapter === true;
  return lanes ? { vector: 'lanes', matrix: 'lanes' } : { vector: 'split', matrix: 'tiled' };
}

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
 * Times the shapes on a small 4-bit product and gives the faster for each use. Takes 0.5 MB of device
 * memory while it runs, and as long as the compilation of four kernels.
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

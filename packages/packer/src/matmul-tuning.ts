/**
 * Which kernel a device multiplies with: a choice among three shapes, made once per device.
 *
 * - `lanes`: each lane owns columns and walks all of k; x by subgroup broadcast, no barrier.
 * - `split`: one row of x; the invocations of a workgroup share the k of a few columns.
 * - `tiled`: many rows of x; tiles of both operands in workgroup memory.
 *
 * A GPU wants `split` and `tiled`. A device whose invocations are lanes of a CPU core wants
 * `lanes`: there a barrier is a switch between coroutines and workgroup memory is ordinary memory.
 * The default goes by what WebGPU says of the adapter; `tuneMatmul` measures instead.
 */
import type { VramDevice } from '@vramkit/core';

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

/**
 * The choice where nothing was measured: `lanes` on a fallback (CPU) adapter, else the GPU's
 * shapes.
 */
export function defaultMatmulTuning(device: VramDevice): MatmulTuning {
  const lanes = sharedLanes(device) > 0 && adapterInfo(device)?.isFallbackAdapter === true;
  return lanes ? { vector: 'lanes', matrix: 'lanes' } : { vector: 'split', matrix: 'tiled' };
}

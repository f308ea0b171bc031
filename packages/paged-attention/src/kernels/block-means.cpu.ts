/** Definition of block-means: the mean over whole blocks; in f64. */
import { at } from './host-kv.cpu.js';
import type { BlockStatistic } from './block-means.wgsl.js';

/** Where the numbers of a block are: see block-means.wgsl.ts. */
export interface BlockNumbers {
  readonly layers: number;
  readonly perLayer: number;
  readonly layerStride: number;
}

/** Gives the mean of each of `blocks`, and how many of its numbers were not finite. */
export function blockMeans(
  values: Float32Array,
  blocks: ArrayLike<number>,
  { layers, perLayer, layerStride }: BlockNumbers,
  statistic: BlockStatistic,
  epsilon: number,
): { readonly mean: number; readonly infinite: number }[] {
  return Array.from(blocks, (block) => {
    let sum = 0;
    let infinite = 0;
    const count = (value: number): number => {
      if (!Number.isFinite(value)) infinite++;
      return value;
    };
    for (let layer = 0; layer < layers; layer++) {
      for (let i = 0; i < perLayer; i++) {
        const index = layer * layerStride + block * perLayer + i;
        if (statistic === 'sum') sum += count(at(values, index));
        if (statistic === 'keyNorm') sum += count(at(values, 2 * index));
        if (statistic === 'valueNorm') sum += count(at(values, 2 * index + 1));
        if (statistic === 'valueOverKeyNorm') {
          const keyNorm = Math.max(count(at(values, 2 * index)), epsilon);
          sum += count(at(values, 2 * index + 1)) / keyNorm;
        }
      }
    }
    return { mean: sum / (layers * perLayer), infinite };
  });
}

/** Definition of copy-blocks: whole blocks of K, V and norms, one copy after the other. */
import { layerBlockElements, tokenNorms } from '../kv-layout.js';
import type { HostKv } from './host-kv.cpu.js';

/** Copies blocks within `kv`. */
export function copyBlocks(
  kv: HostKv,
  copies: readonly { readonly from: number; readonly to: number }[],
): void {
  const copy = (data: Float32Array, size: number, from: number, to: number): void => {
    data.copyWithin(to * size, from * size, (from + 1) * size);
  };
  const { layout } = kv;
  for (const { from, to } of copies) {
    for (const layer of kv.layers) copy(layer, layerBlockElements(layout), from, to);
    copy(kv.norms, layout.blockSize * tokenNorms(layout), from, to);
  }
}

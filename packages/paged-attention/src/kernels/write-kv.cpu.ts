/** Definition of write-kv: K and V of tokens go to their slots, with their norms; sums in f64. */
import { keyElement, normElement, SKIPPED_SLOT, valueElement } from '../kv-layout.js';
import { at, layerOf, stored, type HostKv } from './host-kv.cpu.js';

/** Rows of floats on the host: row i starts at `offset + i * rowStride`. */
export interface HostRows {
  readonly data: Float32Array;
  readonly rowStride: number;
  readonly offset: number;
}

/** Writes one layer's K and V of `slots.length` tokens into `kv`. */
export function writeKv(
  kv: HostKv,
  request: {
    readonly layer: number;
    readonly keys: HostRows;
    readonly values: HostRows;
    readonly slots: Uint32Array;
  },
): void {
  const { layout } = kv;
  const storage = layerOf(kv, request.layer);
  request.slots.forEach((slot, token) => {
    if (slot === SKIPPED_SLOT) return;
    for (let head = 0; head < layout.kvHeads; head++) {
      const write = (rows: HostRows, element: typeof keyElement): number => {
        let sum = 0;
        for (let d = 0; d < layout.headDim; d++) {
          const from = rows.offset + token * rows.rowStride + head * layout.headDim + d;
          const value = at(rows.data, from);
          storage[element(layout, slot, head, d)] = stored(layout.dtype, value);
          sum += value * value;
        }
        return Math.sqrt(sum);
      };
      const norm = normElement(layout, slot, request.layer, head);
      kv.norms[norm] = write(request.keys, keyElement);
      kv.norms[norm + 1] = write(request.values, valueElement);
    }
  });
}

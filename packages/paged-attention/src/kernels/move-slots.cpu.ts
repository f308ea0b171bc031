/** Definition of move-slots: `to[i]` receives the K, V and norms that `from[i]` holds. */
import { keyElement, tokenNorms, valueElement } from '../kv-layout.js';
import { at, type HostKv } from './host-kv.cpu.js';

/** Moves tokens within `kv`; no slot is in both lists. */
export function moveSlots(kv: HostKv, from: Uint32Array, to: Uint32Array): void {
  const { layout } = kv;
  const perToken = tokenNorms(layout);
  from.forEach((source, index) => {
    const target = at(to, index);
    for (const layer of kv.layers) {
      for (let head = 0; head < layout.kvHeads; head++) {
        for (let d = 0; d < layout.headDim; d++) {
          for (const element of [keyElement, valueElement]) {
            layer[element(layout, target, head, d)] = at(layer, element(layout, source, head, d));
          }
        }
      }
    }
    kv.norms.copyWithin(target * perToken, source * perToken, (source + 1) * perToken);
  });
}

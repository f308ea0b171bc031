/**
 * Whole blocks between device and host: K and V of every layer, then the norms, as bytes.
 *
 * ```
 *   | layer 0: K and V | layer 1 | ... | norms |        bytesPerBlock
 * ```
 *
 * The bytes are those of the device, so a block that comes back is the block that left, bit for
 * bit, on a cache of the same layout. Neighbouring blocks of a call move together.
 */
import {
  checkInteger,
  subrange,
  writeRange,
  type BufferRange,
  type VramDevice,
} from '@vramkit/core';
import { bytesPerBlock, layerBlockBytes, normBlockBytes, type KvLayout } from './kv-layout.js';
import type { KvSegment } from './kv-storage.js';
import { readBlocks } from './readback.js';

/** Where a part of a block is: in the storage of its segment, and in its bytes. */
interface BlockPart {
  readonly storage: (segment: KvSegment) => BufferRange;
  readonly sizeBytes: number;
  /** Within the bytes of the block. */
  readonly offsetBytes: number;
}

function partsOf(layout: KvLayout): BlockPart[] {
  const sizeBytes = layerBlockBytes(layout);
  const layers = Array.from({ length: layout.layers }, (_, layer): BlockPart => {
    // Every segment has a range for each layer of the layout that it was made for.
    const storage = ({ layers: ranges }: KvSegment): BufferRange => ranges[layer] as BufferRange;
    return { storage, sizeBytes, offsetBytes: layer * sizeBytes };
  });
  const norms = { storage: ({ norms: range }: KvSegment) => range };
  const offsetBytes = layout.layers * sizeBytes;
  return [...layers, { ...norms, sizeBytes: normBlockBytes(layout), offsetBytes }];
}

/** The bytes of each block, by its id; one wait for the device per layer and MiB. */
export async function readWholeBlocks(
  device: VramDevice,
  layout: KvLayout,
  segments: readonly KvSegment[],
  ids: Iterable<number>,
  gather: BufferRange,
): Promise<Map<number, Uint8Array<ArrayBuffer>>> {
  const blocks = [...new Set(ids)].sort((a, b) => a - b);
  for (const id of blocks) checkInteger('block', id, 0, layout.blockCount - 1);
  const whole = new Map(blocks.map((id) => [id, new Uint8Array(bytesPerBlock(layout))]));
  for (const { storage, sizeBytes, offsetBytes } of partsOf(layout)) {
    const reads = { blocks, blockBytes: sizeBytes, storage };
    const read = await readBlocks(device, segments, reads, gather);
    for (const [id, bytes] of read) whole.get(id)?.set(bytes, offsetBytes);
  }
  return whole;
}

/** Writes blocks from their bytes; the device sees them before any work submitted later. */
export function writeWholeBlocks(
  device: VramDevice,
  layout: KvLayout,
  segments: readonly KvSegment[],
  contents: ReadonlyMap<number, Uint8Array>,
): void {
  const blockBytes = bytesPerBlock(layout);
  for (const [id, { length }] of contents) {
    checkInteger('block', id, 0, layout.blockCount - 1);
    checkInteger('bytes of a block', length, blockBytes, blockBytes);
  }
  const parts = partsOf(layout);
  for (const [id, bytes] of contents) {
    const segment = segments.find((s) => id < s.firstBlock + s.blockCount);
    if (segment === undefined) continue;
    for (const { storage, sizeBytes, offsetBytes } of parts) {
      const range = subrange(storage(segment), (id - segment.firstBlock) * sizeBytes, sizeBytes);
      writeRange(device, range, bytes.subarray(offsetBytes, offsetBytes + sizeBytes));
    }
  }
}

/**
 * Where each element of a paged KV cache is: pure arithmetic, shared by kernels, twins and
 * readback.
 *
 * Each layer has its own storage, an array of blocks. Within a block of a layer:
 *
 * ```
 *   keys    [kvHeads, headDim / 4, blockSize, 4]     four elements of all tokens, then the next
 *   four values  [kvHeads, blockSize, headDim]            token by token
 * ```
 *
 * Why: attention reads keys with lanes over tokens (each lane owns one score, so no lane waits for
 * another) and values with lanes over headDim (each lane owns four output elements). In both cases
 * neighbouring lanes then read neighbouring 16 bytes. Keys by token would make each lane stride by
 * a whole row; this is why vLLM packs keys in groups of 16 bytes too (Kwon et al., 2023, arXiv
 * 2309.06180). Heads are outside tokens, because a workgroup reads one KV head. A block of a layer
 * is contiguous, so a copy is linear and a transfer is one range per layer.
 *
 * Norms are f32 `[slot, layer, kvHead, 2]` (key, value) outside the layers: whoever scores a block
 * wants all of its norms at once, and they are one contiguous range.
 *
 * Segments: storage splits by block id so that no binding exceeds the device's limits. All layers
 * and the norms split at the same ids.
 */
import { assertArgument, checkInteger, fail, type DeviceLimits } from '@vramkit/core';

/** Element types that a KV cache stores. */
export type KvDType = 'f32' | 'f16';

/** What the arithmetic of one layer's block depends on. */
export interface KvShape {
  readonly dtype: KvDType;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Elements of a head, a multiple of 4, at most 256. */
  readonly headDim: number;
  /** Tokens of a block, a multiple of 4. */
  readonly blockSize: number;
}

/** Shape of a whole cache. */
export interface KvLayout extends KvShape {
  readonly layers: number;
  readonly blockCount: number;
}

/** A run of blocks whose storage is bound together. */
export interface BlockRun {
  readonly firstBlock: number;
  readonly blockCount: number;
}

/** Slots are 32-bit, and the highest one is reserved for {@link SKIPPED_SLOT}. */
const MAX_SLOTS = 2 ** 31;

/** The slot of a token whose K and V are not written. */
export const SKIPPED_SLOT = 0xffff_ffff;

/**
 * Checks every number of a layout.
 * @throws VramError `invalid-argument` naming the first that is out of range.
 */
export function checkLayout(layout: KvLayout): void {
  for (const name of ['layers', 'kvHeads', 'headDim', 'blockCount', 'blockSize'] as const) {
    checkInteger(name, layout[name], 1);
  }
  const { headDim, blockSize, blockCount } = layout;
  assertArgument(headDim % 4 === 0, `headDim ${headDim} must be a multiple of 4`, { headDim });
  assertArgument(headDim <= 256, `headDim ${headDim} exceeds 256`, { headDim });
  assertArgument(blockSize % 4 === 0, `blockSize ${blockSize} must be a multiple of 4`, {
    blockSize,
  });
  assertArgument(
    blockCount * blockSize <= MAX_SLOTS,
    `${blockCount} blocks of ${blockSize} exceed ${MAX_SLOTS} slots`,
    { blockCount, blockSize },
  );
  assertArgument(
    layout.dtype === 'f32' || layout.dtype === 'f16',
    `a KV cache stores f32 or f16, not ${String(layout.dtype)}`,
  );
}

/** Elements of K and V of one block of one layer. */
export function layerBlockElements(shape: KvShape): number {
  return 2 * shape.kvHeads * shape.blockSize * shape.headDim;
}

/** Bytes of K and V of one block of one layer. */
export function layerBlockBytes(shape: KvShape): number {
  return layerBlockElements(shape) * (shape.dtype === 'f16' ? 2 : 4);
}

/** Norms (f32 elements) of one token: `[layer, kvHead, 2]`. */
export function tokenNorms(layout: KvLayout): number {
  return layout.layers * layout.kvHeads * 2;
}

/** Bytes of the norms of one block. */
export function normBlockBytes(layout: KvLayout): number {
  return layout.blockSize * tokenNorms(layout) * 4;
}

/** Bytes of one block: K, V and norms of all layers. */
export function bytesPerBlock(layout: KvLayout): number {
  return layout.layers * layerBlockBytes(layout) + normBlockBytes(layout);
}

/**
 * Element of component `d` of the key at `slot`, within a layer's storage.
 */
export function keyElement(shape: KvShape, slot: number, kvHead: number, d: number): number {
  const { blockSize, headDim } = shape;
  const block = Math.floor(slot / blockSize);
  const offset = slot % blockSize;
  const group = kvHead * (headDim / 4) + Math.floor(d / 4);
  return block * layerBlockElements(shape) + (group * blockSize + offset) * 4 + (d % 4);
}

/** Element of component `d` of the value at `slot`, within a layer's storage. */
export function valueElement(shape: KvShape, slot: number, kvHead: number, d: number): number {
  const { blockSize, headDim, kvHeads } = shape;
  const block = Math.floor(slot / blockSize);
  const row = (kvHeads + kvHead) * blockSize + (slot % blockSize);
  return block * layerBlockElements(shape) + row * headDim + d;
}

/** Element of the key norm at `slot`, within all norms; the value norm follows it. */
export function normElement(layout: KvLayout, slot: number, layer: number, kvHead: number): number {
  return slot * tokenNorms(layout) + (layer * layout.kvHeads + kvHead) * 2;
}

/**
 * Splits the blocks so that a run's storage of one layer, and its norms, fit one binding.
 * @throws VramError `unsupported` where even one block exceeds the limit.
 */
export function planRuns(
  layout: KvLayout,
  limits: Pick<DeviceLimits, 'maxStorageBufferBindingSize' | 'maxBufferSize'>,
): BlockRun[] {
  const limitBytes = Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize);
  const largest = Math.max(layerBlockBytes(layout), normBlockBytes(layout));
  const perRun = Math.floor(limitBytes / largest);
  if (perRun === 0) {
    fail(
      'unsupported',
      `a block takes ${largest} B of one binding, the device allows ${limitBytes}`,
      {
        blockBytes: largest,
        limitBytes,
      },
    );
  }
  const runs: BlockRun[] = [];
  for (let firstBlock = 0; firstBlock < layout.blockCount; firstBlock += perRun) {
    runs.push({ firstBlock, blockCount: Math.min(perRun, layout.blockCount - firstBlock) });
  }
  return runs;
}

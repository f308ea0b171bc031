/**
 * A paged KV cache on the device: storage of K, V and norms, and the operations over it.
 *
 * It executes, it does not decide: which block belongs to which sequence, what is copied and what
 * is evicted comes in as plain arrays of block ids and slots. All operations record into a batch of
 * the caller and run in its order; only the reads are asynchronous.
 *
 * After warm-up an operation creates no buffer, no bind group and no pipeline: scratch is sized by
 * the shape of a call, not by how long its sequences are, and the paths that a longer sequence
 * takes are compiled at the first call. But for logits, which are kept where received attention is
 * added up: their scratch grows with the longest sequence, to at least twice its size each time,
 * and so a few times in all.
 *
 * Length: one class, a method for each operation; what an operation does is in a file of its own.
 */
import {
  assertArgument,
  Batch,
  checkInteger,
  createTensor,
  fail,
  subrange,
  type BufferRange,
  type MemoryResource,
  type Tensor,
  type VramDevice,
} from '@vramkit/core';
import { AttentionScratch } from './attention-scratch.js';
import {
  meanBytes,
  meanRanges,
  readMeans,
  recordNormMeans,
  recordSumMeans,
  type MeanRanges,
  type NormMean,
} from './block-means.js';
import { readWholeBlocks, writeWholeBlocks } from './block-transfer.js';
import {
  logitRowLength,
  planDecode,
  recordDecode,
  recordMerge,
  type DecodeRequest,
} from './decode.js';
import {
  bytesPerBlock,
  checkLayout,
  layerBlockBytes,
  normBlockBytes,
  type KvDType,
  type KvLayout,
  type KvShape,
} from './kv-layout.js';
import { readKeySimilarity, readKeySimilarityMeans } from './key-similarity.js';
import { KvStorage } from './kv-storage.js';
import { recordCopies, recordMoves, type BlockPair, type SlotMoves } from './moves.js';
import { prefillScratchBytes, recordPrefill, type PrefillRequest } from './prefill.js';
import {
  pickNorms,
  readNormBlocks,
  readTokens,
  type TokenKv,
  type TokenNorms,
} from './readback.js';
import { checkReceived, reserveLogits } from './received-attention.js';
import { checkRows, checkWords } from './strided-rows.js';
import { recordWrite, type WriteRequest } from './write.js';

/** Options of {@link createPagedKvCache}. */
export interface PagedKvCacheOptions {
  /** Layers of the model. */
  readonly layers: number;
  /** Key and value heads of a layer. */
  readonly kvHeads: number;
  /** Elements of a head, a multiple of 4, at most 256. */
  readonly headDim: number;
  /** Blocks of the cache; ids are 0 .. blockCount - 1. */
  readonly blockCount: number;
  /** Tokens of a block, a multiple of 4. */
  readonly blockSize: number;
  /** How K and V are stored; arithmetic and norms are f32. f16 needs no device feature. */
  readonly dtype: KvDType;
  /**
   * Where the memory comes from; beside an arena, the range that gathers blocks for reading comes
   * from the device's. Default: the device's budgeted memory.
   */
  readonly memory?: MemoryResource;
  /** Name in errors, traces and memory reports. Default: 'kv'. */
  readonly label?: string;
  /** Decode calls to take scratch for at once. Default: taken at the first call. */
  readonly reserve?: { readonly heads: number; readonly sequences: number };
}

/** Gathered blocks are moved to the host in parts of this size, or of one block. */
const GATHER_BYTES = 1024 * 1024;

/** Paged K and V of all layers on one device; see {@link createPagedKvCache}. */
export class PagedKvCache {
  readonly device: VramDevice;
  readonly layout: KvLayout;
  /** Bytes of one block: K, V and norms of all layers. */
  readonly bytesPerBlock: number;
  /** Bytes of all blocks. */
  readonly sizeBytes: number;
  readonly #shape: KvShape;
  readonly #storage: KvStorage;
  readonly #scratch: AttentionScratch;
  /** Taken where attention is added up or keys are compared. */
  readonly #logits: AttentionScratch;
  readonly #gather: Tensor;
  readonly #preparedOutputs = new WeakSet<GPUBuffer>();
  #disposed = false;

  /** Use {@link createPagedKvCache}. */
  constructor(device: VramDevice, options: PagedKvCacheOptions) {
    device.assertUsable();
    const { layers, kvHeads, headDim, blockCount, blockSize, dtype } = options;
    const layout: KvLayout = { layers, kvHeads, headDim, blockCount, blockSize, dtype };
    checkLayout(layout);
    this.device = device;
    this.layout = layout;
    this.#shape = { dtype, kvHeads, headDim, blockSize };
    this.bytesPerBlock = bytesPerBlock(layout);
    this.sizeBytes = blockCount * this.bytesPerBlock;
    const memory = options.memory ?? device.memory;
    const label = options.label ?? 'kv';
    const limitBytes = device.limits.maxStorageBufferBindingSize;
    this.#scratch = new AttentionScratch(memory, `${label} attention`, limitBytes);
    this.#logits = new AttentionScratch(memory, `${label} logits`, limitBytes);
    this.#storage = new KvStorage(device, layout, memory, label);
    try {
      if (options.reserve !== undefined) this.#reserve(options.reserve);
      const gather = this.#createGather(memory, label);
      const isShared = this.#storage.hasBuffer(gather.buffer);
      // An arena's: WebGPU cannot copy blocks within one buffer.
      if (isShared) gather.dispose();
      this.#gather = isShared ? this.#createGather(device.memory, label) : gather;
    } catch (error) {
      this.#scratch.dispose();
      this.#storage.dispose();
      throw error;
    }
  }

  #createGather(memory: MemoryResource, label: string): Tensor {
    const perBlock = normBlockBytes(this.layout);
    const blocks = Math.max(1, Math.floor(GATHER_BYTES / perBlock));
    const normBytes = Math.min(blocks, this.layout.blockCount) * perBlock;
    const bytes = Math.max(normBytes, layerBlockBytes(this.layout));
    return createTensor(this.device, {
      dtype: 'f32',
      shape: [bytes / 4],
      kind: 'staging',
      label: `${label} gathered blocks`,
      memory,
    });
  }

  #reserve(most: { readonly heads: number; readonly sequences: number }): void {
    checkInteger('sequences', most.sequences, 1);
    this.#checkHeads(most.heads);
    const capacity = this.layout.blockCount * this.layout.blockSize;
    this.#scratch.reserve(planDecode(this.#shape, { ...most, maxLength: capacity }).scratchBytes);
  }

  /** Bindings that storage was split over; 1 where a layer fits one. */
  get segmentCount(): number {
    return this.#storage.segments.length;
  }

  /** Bytes of attention scratch and of the range that gathers blocks, beside {@link sizeBytes}. */
  get scratchBytes(): number {
    return this.#scratch.sizeBytes + this.#logits.sizeBytes + this.#gather.sizeBytes;
  }

  /**
   * Records the write of K and V of `tokens` tokens, and of their norms.
   * @throws VramError `invalid-argument` where a number or range does not fit the cache;
   * `disposed`.
   */
  writeKv(batch: Batch, request: WriteRequest): void {
    this.#checkLayer(request.layer);
    const { keys, values, tokens, slots } = request;
    checkInteger('tokens', tokens);
    const width = this.layout.kvHeads * this.layout.headDim;
    checkRows('keys', keys, tokens, width);
    checkRows('values', values, tokens, width);
    checkWords('slots', slots, tokens);
    if (tokens > 0) {
      recordWrite(batch, this.device.limits, this.layout, this.#storage.segments, request);
    }
  }

  /**
   * Records attention of one query per sequence over all its cached slots.
   *
   * `lengths` are on the device and cannot be checked: slots behind `maxLength` or behind the row
   * of the block table are not read. A length of 0 gives zeros.
   * @throws VramError `invalid-argument` where a number or range does not fit; `out-of-memory` or
   * `unsupported` where scratch for more sequences than before cannot be had; `disposed`.
   */
  decodeAttention(batch: Batch, request: DecodeRequest): void {
    this.#checkLayer(request.layer);
    this.#checkHeads(request.heads);
    const { sequences, tableStride, maxLength, heads } = request;
    checkInteger('sequences', sequences);
    checkInteger('tableStride', tableStride, 1);
    checkInteger('maxLength', maxLength, 0, tableStride * this.layout.blockSize);
    this.#checkLength('maxLength', maxLength);
    const width = heads * this.layout.headDim;
    checkRows('queries', request.queries, sequences, width);
    checkRows('output', request.output, sequences, width);
    checkWords('blockTables', request.blockTables, sequences * tableStride);
    checkWords('lengths', request.lengths, sequences);
    const { received = [] } = request;
    for (const each of received) {
      checkInteger('sequence of received', each.sequence, 0, sequences - 1);
      checkReceived('received', each, each.length, this.layout.kvHeads);
      checkInteger('length of received', each.length, 1, maxLength);
    }
    if (sequences === 0) return;
    const plan = planDecode(this.#shape, request);
    const logits =
      received.length === 0
        ? undefined
        : reserveLogits(
            this.#logits,
            this.device.limits,
            sequences * heads,
            logitRowLength(this.#shape, request),
          );
    const scratch = { partials: this.#scratch.reserve(plan.scratchBytes), logits };
    const output = request.output.range.buffer;
    if (logits === undefined && !this.#preparedOutputs.has(output)) {
      // A sequence that outgrows one partition needs the merge: it is compiled and bound before.
      recordMerge(batch, this.#shape, request, scratch, 1, 0);
      this.#preparedOutputs.add(output);
    }
    recordDecode(batch, this.#shape, this.#storage.segments, request, scratch, plan);
  }

  /**
   * Records causal attention of `tokens` queries of one sequence, whose K and V are already
   * written: query i sees slots 0 .. contextLength + i in logical order.
   * @throws VramError as {@link decodeAttention}.
   */
  prefillAttention(batch: Batch, request: PrefillRequest): void {
    this.#checkLayer(request.layer);
    this.#checkHeads(request.heads);
    const { tokens, contextLength, heads } = request;
    checkInteger('tokens', tokens);
    checkInteger('contextLength', contextLength);
    this.#checkLength('contextLength + tokens', contextLength + tokens);
    const width = heads * this.layout.headDim;
    checkRows('queries', request.queries, tokens, width);
    checkRows('output', request.output, tokens, width);
    const blocks = Math.ceil((contextLength + tokens) / this.layout.blockSize);
    checkWords('blockTable', request.blockTable, blocks);
    for (const each of request.received ?? []) {
      checkInteger('firstQuery', each.firstQuery, 0, Math.max(0, tokens - 1));
      checkReceived('received', each, contextLength + tokens, this.layout.kvHeads);
    }
    if (tokens === 0) return;
    const states = this.#scratch.reserve(prefillScratchBytes(request, this.segmentCount));
    const { limits } = this.device;
    const { segments } = this.#storage;
    const target = { batch, limits, shape: this.#shape, segments, states };
    recordPrefill({ ...target, logitScratch: this.#logits }, request);
  }

  /**
   * Records copies of whole blocks (K, V and norms of all layers), as if one after the other.
   * @throws VramError `invalid-argument` for a block that the cache does not have; `disposed`.
   */
  copyBlocks(batch: Batch, copies: readonly BlockPair[]): void {
    this.#assertLive();
    for (const { from, to } of copies) {
      checkInteger('block to copy from', from, 0, this.layout.blockCount - 1);
      checkInteger('block to copy to', to, 0, this.layout.blockCount - 1);
    }
    recordCopies(batch, this.layout, this.#storage.segments, copies);
  }

  /**
   * Records the move of `count` tokens (K, V and norms of all layers): `to[i]` receives what
   * `from[i]` holds. No slot may be in both lists, which is not checked. Cost over n segments: n
   * squared passes.
   * @throws VramError `invalid-argument` where a list is shorter than `count`; `disposed`.
   */
  moveSlots(batch: Batch, moves: SlotMoves): void {
    this.#assertLive();
    checkInteger('count', moves.count);
    checkWords('from', moves.from, moves.count);
    checkWords('to', moves.to, moves.count);
    if (moves.count > 0) recordMoves(batch, this.layout, this.#storage.segments, moves);
  }

  /**
   * Reads the norms of `slots`, each `[slots, layers, kvHeads]`, after all work submitted so far.
   * One wait for the device per MiB of norms; blocks are read whole.
   * @throws VramError `invalid-argument` for a slot that the cache does not have; `device-lost`.
   */
  async readNorms(slots: ArrayLike<number>): Promise<TokenNorms> {
    this.#assertLive();
    const { layout } = this;
    const blocks = this.#blocksOf(slots);
    const { segments } = this.#storage;
    const read = await readNormBlocks(this.device, layout, segments, blocks, this.#gather);
    return pickNorms(layout, slots, read);
  }

  /**
   * Reads K and V of `slots` in one layer, each `[slots, kvHeads, headDim]`, after all work
   * submitted so far. Blocks are read whole; one wait for the device per MiB of them.
   * @throws VramError as {@link readNorms}.
   */
  async readKv(layer: number, slots: ArrayLike<number>): Promise<TokenKv> {
    this.#checkLayer(layer);
    const of = { layer, slots, blocks: this.#blocksOf(slots) };
    const { segments } = this.#storage;
    return readTokens(this.device, this.layout, segments, of, this.#gather);
  }

  /**
   * Reads how alike the keys of `slots` are: the cosine of each and the sum of the unit keys of all
   * of them, `[slots, layers, kvHeads]`; 0 for a zero key and for a zero sum. Two passes over the
   * keys, and one wait for the device.
   * @throws VramError as {@link readNorms}.
   */
  async readKeySimilarity(slots: Uint32Array): Promise<Float32Array<ArrayBuffer>> {
    this.#assertLive();
    this.#blocksOf(slots);
    if (slots.length === 0) return new Float32Array(0);
    return readKeySimilarity(this.#similarity(slots));
  }

  /**
   * Reads the mean of {@link readKeySimilarity} over each whole block that `slots` make up, in
   * their order: `[floor(slots / blockSize)]`. 8 bytes of a block reach the host.
   * @throws VramError as {@link readNorms}; `invalid-argument` where a key is not finite.
   */
  async readKeySimilarityMeans(slots: Uint32Array): Promise<Float64Array<ArrayBuffer>> {
    this.#assertLive();
    this.#blocksOf(slots);
    if (slots.length < this.layout.blockSize) return new Float64Array(0);
    return readKeySimilarityMeans(this.#similarity(slots));
  }

  #similarity(slots: Uint32Array) {
    const { device, layout } = this;
    return { device, layout, slots, segments: this.#storage.segments, scratch: this.#logits };
  }

  /**
   * Reads the mean of a number made of norms over all tokens, layers and KV heads of each of
   * `blocks`, which are full, after all work submitted so far. 8 bytes of a block reach the host.
   * @throws VramError `invalid-argument` for a block that the cache does not have, or where a norm
   * is not finite; `device-lost`.
   */
  async readNormMeans(blocks: Uint32Array, mean: NormMean): Promise<Float64Array<ArrayBuffer>> {
    this.#assertLive();
    for (const block of blocks) checkInteger('block', block, 0, this.layout.blockCount - 1);
    return this.#readMeans(blocks, (batch, ranges) => {
      recordNormMeans(batch, this.layout, this.#storage.segments, ranges, mean);
    });
  }

  /**
   * Reads the mean over each of the first `count` blocks of a sequence of numbers per token, f32
   * `[layers, capacity, kvHeads]`.
   * @throws VramError `invalid-argument` where `sums` has fewer blocks or a number is not finite;
   * `device-lost`.
   */
  async readSumMeans(sums: BufferRange, count: number): Promise<Float64Array<ArrayBuffer>> {
    this.#assertLive();
    const { layers, kvHeads, blockSize } = this.layout;
    checkInteger('count', count, 0, Math.floor(sums.sizeBytes / 4 / layers / kvHeads / blockSize));
    const blocks = Uint32Array.from({ length: count }, (_, i) => i);
    const result = new Float64Array(count);
    const layerBytes = sums.sizeBytes / layers;
    // As many layers as one binding holds; all of them, but for very long sequences.
    const { maxStorageBufferBindingSize } = this.device.limits;
    const most = Math.max(1, Math.floor(maxStorageBufferBindingSize / layerBytes));
    for (let first = 0; first < layers; first += most) {
      const part = Math.min(most, layers - first);
      const range = subrange(sums, first * layerBytes, part * layerBytes);
      const means = await this.#readMeans(blocks, (batch, ranges) => {
        recordSumMeans(batch, { ...this.layout, layers: part }, ranges, range);
      });
      means.forEach(
        (mean, block) => (result[block] = (result[block] ?? 0) + mean * (part / layers)),
      );
    }
    return result;
  }

  async #readMeans(
    blocks: Uint32Array,
    record: (batch: Batch, ranges: MeanRanges) => void,
  ): Promise<Float64Array<ArrayBuffer>> {
    if (blocks.length === 0) return new Float64Array(0);
    const range = this.#logits.reserve(meanBytes(blocks.length));
    const ranges = meanRanges(this.device, range, blocks);
    const batch = new Batch(this.device, 'means of blocks');
    record(batch, ranges);
    batch.submit();
    return readMeans(this.device, ranges, blocks);
  }

  /**
   * Reads whole blocks, K, V and norms of all layers, {@link bytesPerBlock} each, after all work
   * submitted so far. One wait for the device per layer and MiB.
   * @throws VramError as {@link readNorms}.
   */
  async readBlocks(blocks: Iterable<number>): Promise<Map<number, Uint8Array<ArrayBuffer>>> {
    this.#assertLive();
    return readWholeBlocks(this.device, this.layout, this.#storage.segments, blocks, this.#gather);
  }

  /**
   * Writes whole blocks that {@link readBlocks} gave, of this cache or of one of the same layers,
   * heads, block size and dtype. The bytes may be reused once it returns.
   * @throws VramError `invalid-argument` for an unknown block or a wrong count of bytes, with
   * nothing written.
   */
  writeBlocks(contents: ReadonlyMap<number, Uint8Array>): void {
    this.#assertLive();
    writeWholeBlocks(this.device, this.layout, this.#storage.segments, contents);
  }

  /** The blocks of slots, ascending. */
  #blocksOf(slots: ArrayLike<number>): number[] {
    const { blockCount, blockSize } = this.layout;
    const blocks = new Set<number>();
    for (let i = 0; i < slots.length; i++) {
      const slot = checkInteger('slot', slots[i] ?? -1, 0, blockCount * blockSize - 1);
      blocks.add(Math.floor(slot / blockSize));
    }
    return [...blocks].sort((a, b) => a - b);
  }

  #checkLayer(layer: number): void {
    this.#assertLive();
    checkInteger('layer', layer, 0, this.layout.layers - 1);
  }

  #checkHeads(heads: number): void {
    const { kvHeads } = this.layout;
    checkInteger('heads', heads, 1);
    assertArgument(heads % kvHeads === 0, `${heads} heads over ${kvHeads} KV heads`, {
      heads,
      kvHeads,
    });
  }

  #checkLength(name: string, length: number): void {
    const { blockCount, blockSize } = this.layout;
    checkInteger(name, length, 0, blockCount * blockSize);
  }

  #assertLive(): void {
    if (this.#disposed) fail('disposed', 'the KV cache was disposed');
    this.device.assertUsable();
  }

  /** Gives all memory back; idempotent. Batches that name the cache must have been submitted. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#gather.dispose();
    this.#scratch.dispose();
    this.#logits.dispose();
    this.#storage.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Allocates a paged KV cache; the caller disposes it. All or nothing: on failure nothing stays
 * taken.
 * @throws VramError `invalid-argument` for a shape that cannot be; `out-of-memory` of kind 'kv'
 * with the shortfall; `unsupported` where one block exceeds the largest binding.
 */
export function createPagedKvCache(device: VramDevice, options: PagedKvCacheOptions): PagedKvCache {
  return new PagedKvCache(device, options);
}

/**
 * The attention that the tokens of one sequence received, for policies that decide by it.
 *
 * Sums belong to a sequence and not to slots: two forks share blocks, but what the queries of one
 * attend to says nothing to the other. They stand in the order of the block table, and move with
 * the tokens when some are evicted:
 *
 * ```
 *   prepare(step)  ->  received(layer) to the attention calls of the step  ->  submit
 *   decision       ->  read(tokenCount, ...), then keep(the tokens that stay)
 * ```
 *
 * A prompt's end is known to its own queries only: where it is shorter than the window, those
 * before it do not count for the decision at its end.
 *
 * Each sum of `windowSums` has a range of `[layers, capacity, kvHeads]`; one more is spare, since
 * survivors cannot be moved within a range. Ranges are used again when their decision has passed,
 * so a long generation creates nothing.
 */
import {
  allocate,
  assertArgument,
  Batch,
  checkInteger,
  fail,
  subrange,
  writeRange,
  type Allocation,
  type BufferRange,
  type MemoryResource,
} from '@vramkit/core';
import { windowSums, type QuerySpan } from './attention-windows.js';
import { KEEP_LANES, keepSumsKernel } from './kernels/keep-sums.wgsl.js';
import type { PagedKvCache } from './paged-kv-cache.js';
import { byToken } from './readback.js';
import type { PrefillReceived } from './received-attention.js';

/** Options of {@link AttentionRecord}. */
export interface AttentionRecordOptions {
  /** Last queries whose attention counts; `Infinity` for all. */
  readonly queries: number;
  /** Where the memory comes from. Default: the device's budgeted memory. */
  readonly memory?: MemoryResource;
}

/** One step of the sequence. */
export interface RecordedStep extends QuerySpan {
  /** Slots cached before the step. */
  readonly contextLength: number;
}

/** One range of sums. */
interface Plane {
  /** Token count of the decision that reads it. */
  readonly end: number;
  readonly sums: Allocation;
}

/** Tokens that capacity is a multiple of: keeps the layers of a range aligned. */
const CAPACITY_STEP = 64;

/** Sums of one sequence; the caller disposes it. */
export class AttentionRecord {
  /** Last queries whose attention counts; `Infinity` for all. */
  readonly queries: number;
  readonly #cache: PagedKvCache;
  readonly #memory: MemoryResource;
  #capacity = 0;
  #planes: Plane[] = [];
  #spare: Allocation | undefined;
  #kept: Allocation | undefined;
  #step: readonly { readonly plane: Plane; readonly firstQuery: number }[] = [];
  #disposed = false;

  /** @throws VramError `invalid-argument` where `queries` is neither a positive count nor all. */
  constructor(cache: PagedKvCache, options: AttentionRecordOptions) {
    this.queries = options.queries;
    this.#cache = cache;
    this.#memory = options.memory ?? cache.device.memory;
    windowSums(options.queries, cache.layout.blockSize, { start: 0, count: 1 });
  }

  /** Bytes on the device. */
  get sizeBytes(): number {
    return this.#allocations().reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  }

  /**
   * Makes room for a step, before its attention calls. Sums of decisions that have passed start
   * anew. Submits work of its own where a sum is new.
   * @throws VramError `out-of-memory`, with the sums as they were; `invalid-argument`; `disposed`.
   */
  prepare(step: RecordedStep): void {
    this.#assertLive();
    const { blockSize } = this.#cache.layout;
    const sums = windowSums(this.queries, blockSize, step);
    const tokens = checkInteger('contextLength', step.contextLength) + step.count;
    if (tokens > this.#capacity) this.#grow(tokens);
    const isPast = ({ end }: Plane): boolean => end <= step.start;
    const fresh: Plane[] = [];
    this.#step = sums.map(({ end, firstQuery }) => {
      let plane = this.#planes.find((each) => each.end === end);
      if (plane === undefined) {
        const past = this.#planes.find(isPast);
        plane = { end, sums: past?.sums ?? this.#allocate(this.#capacity) };
        this.#planes = [...this.#planes.filter((each) => each !== past), plane];
        fresh.push(plane);
      }
      return { plane, firstQuery };
    });
    if (fresh.length === 0) return;
    const batch = new Batch(this.#cache.device, 'clear attention sums');
    for (const plane of fresh) batch.clear(plane.sums);
    batch.submit();
  }

  /** What the attention calls of the prepared step add to, in one layer. */
  received(layer: number): PrefillReceived[] {
    this.#assertLive();
    checkInteger('layer', layer, 0, this.#cache.layout.layers - 1);
    return this.#step.map(({ plane, firstQuery }) => ({
      sums: this.#layer(plane.sums, layer),
      firstQuery,
    }));
  }

  /**
   * The sums for a decision at `tokenCount` tokens ever seen, `[tokens, layers, kvHeads]`, after
   * all work submitted so far. One wait for the device.
   * @throws VramError `invalid-argument` where no query has counted for such a decision, or
   * `tokens` is more than were cached; `disposed`; `device-lost`.
   */
  async read(tokenCount: number, tokens: number): Promise<Float32Array> {
    this.#assertLive();
    const { layers, kvHeads } = this.#cache.layout;
    const plane = this.#planeAt(tokenCount);
    checkInteger('tokens', tokens, 0, this.#capacity);
    const bytes = await this.#cache.device.readback.read(plane);
    const sums = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    return byToken(sums, { layers, kvHeads, tokens, capacity: sums.length / layers / kvHeads });
  }

  /**
   * The mean of {@link read} over each of the first `blocks` blocks of the sequence, reduced on the
   * device.
   * @throws VramError as {@link read}.
   */
  async readBlockMeans(tokenCount: number, blocks: number): Promise<Float64Array> {
    this.#assertLive();
    return this.#cache.readSumMeans(this.#planeAt(tokenCount), blocks);
  }

  #planeAt(tokenCount: number): BufferRange {
    const plane = this.#planes.find(({ end }) => end === Infinity || end === tokenCount);
    assertArgument(plane !== undefined, `no query has counted for token count ${tokenCount}`, {
      tokenCount,
    });
    return plane.sums;
  }

  /**
   * Only these tokens stay: ascending indices into the block table as it was.
   * @throws VramError `out-of-memory`, with nothing changed; `disposed`.
   */
  keep(kept: Uint32Array): void {
    this.#assertLive();
    checkInteger('kept tokens', kept.length, 0, this.#capacity);
    if (this.#planes.length === 0) return;
    this.#spare ??= this.#allocate(this.#capacity);
    this.#writeKept(kept);
    const batch = new Batch(this.#cache.device, 'keep attention sums');
    let spare = this.#spare;
    this.#planes = this.#planes.map(({ end, sums }) => {
      this.#recordKeep(batch, sums, spare, kept.length, this.#capacity);
      const moved = { end, sums: spare };
      spare = sums;
      return moved;
    });
    this.#spare = spare;
    this.#step = [];
    batch.submit();
  }

  /**
   * A record of its own with the same sums, for a fork of the sequence; the caller disposes it.
   * @throws VramError `out-of-memory`, with nothing taken; `disposed`.
   */
  fork(): AttentionRecord {
    this.#assertLive();
    const copy = new AttentionRecord(this.#cache, { queries: this.queries, memory: this.#memory });
    try {
      copy.#planes = this.#copies(copy, this.#capacity);
      return copy;
    } catch (error) {
      copy.dispose();
      throw error;
    }
  }

  #grow(tokens: number): void {
    const most = Math.max(tokens, Math.min(2 * this.#capacity, this.#slots()));
    const planes = this.#copies(this, Math.ceil(most / CAPACITY_STEP) * CAPACITY_STEP);
    for (const { sums } of this.#planes) this.#memory.free(sums);
    this.#planes = planes;
    this.#step = [];
  }

  #slots(): number {
    const { blockCount, blockSize } = this.#cache.layout;
    return blockCount * blockSize;
  }

  /** Copies of all sums at a capacity, with lists for `target`; all or nothing. */
  #copies(target: AttentionRecord, capacity: number): Plane[] {
    const planes: Plane[] = [];
    const count = this.#capacity;
    let kept: Allocation | undefined;
    try {
      for (const { end } of this.#planes) planes.push({ end, sums: this.#allocate(capacity) });
      kept = this.#allocateList(capacity);
    } catch (error) {
      for (const { sums } of planes) this.#memory.free(sums);
      throw error;
    }
    if (target.#kept !== undefined) this.#memory.free(target.#kept);
    if (target.#spare !== undefined) this.#memory.free(target.#spare);
    target.#spare = undefined;
    target.#kept = kept;
    if (planes.length > 0) {
      target.#writeKept(Uint32Array.from({ length: count }, (_, i) => i));
      const batch = new Batch(this.#cache.device, 'copy attention sums');
      planes.forEach(({ sums }, index) => {
        const source = this.#planes[index]?.sums ?? sums;
        target.#recordKeep(batch, source, sums, count, capacity);
      });
      batch.submit();
    }
    target.#capacity = capacity;
    return planes;
  }

  #recordKeep(
    batch: Batch,
    source: BufferRange,
    target: BufferRange,
    count: number,
    targetTokens: number,
  ): void {
    const { layers, kvHeads: width } = this.#cache.layout;
    if (this.#kept === undefined) fail('invariant', 'the list of kept tokens was not taken');
    const sourceTokens = source.sizeBytes / 4 / layers / width;
    batch.dispatch(keepSumsKernel, {
      params: {},
      bindings: { kept: this.#kept, source, kept_sums: target },
      uniforms: { count, layers, sourceTokens, targetTokens, width },
      workgroups: Math.ceil((layers * targetTokens * width) / KEEP_LANES),
    });
  }

  #writeKept(kept: Uint32Array): void {
    this.#kept ??= this.#allocateList(this.#capacity);
    writeRange(this.#cache.device, this.#kept, kept);
  }

  #layer(sums: Allocation, layer: number): BufferRange {
    const bytes = sums.sizeBytes / this.#cache.layout.layers;
    return subrange(sums, layer * bytes, bytes);
  }

  #allocate(capacity: number): Allocation {
    const { layers, kvHeads } = this.#cache.layout;
    const sizeBytes = layers * capacity * kvHeads * 4;
    return allocate(this.#memory, { sizeBytes, kind: 'kv', label: 'attention sums' });
  }

  #allocateList(capacity: number): Allocation {
    const request = { sizeBytes: capacity * 4, kind: 'staging', label: 'kept tokens' } as const;
    return allocate(this.#memory, request);
  }

  #allocations(): Allocation[] {
    return [...this.#planes.map(({ sums }) => sums), this.#spare, this.#kept].filter(
      (each) => each !== undefined,
    );
  }

  #assertLive(): void {
    if (this.#disposed) fail('disposed', 'the attention record was disposed');
  }

  /** Gives all memory back; idempotent. Batches that name the sums must have been submitted. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const allocation of this.#allocations()) this.#memory.free(allocation);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

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
   * @throws VramError `out-of-memory`, with the sums as they were; `unsupported`, likewise, where
   * the sums of one layer exceed the binding limit; `invalid-argument`; `disposed`.
   */
  prepare(step: RecordedStep): void {
    this.#assertLive();
    const { blockSize } = this.#cache.layout;
    const sums = windowSums(this.queries, blockSize, step);
    const tokens = checkInteger('contextLength', step.contextLength) + step.count;
    if (tokens > this.#capacity) this.#grow(tokens);
    const isPast = ({ end }: Plane): boolean => end <= step.start;
    const prepared = this.#allOrNothing((take) => {
      let planes = this.#planes;
      const fresh: Plane[] = [];
      const parts = sums.map(({ end, firstQuery }) => {
        let plane = planes.find((each) => each.end === end);
        if (plane === undefined) {
          const past = planes.find(isPast);
          plane = { end, sums: past?.sums ?? take(this.#allocate(this.#capacity)) };
          planes = [...planes.filter((each) => each !== past), plane];
          fresh.push(plane);
        }
        return { plane, firstQuery };
      });
      if (fresh.length > 0) {
        const batch = new Batch(this.#cache.device, 'clear attention sums');
        for (const plane of fresh) batch.clear(plane.sums);
        batch.submit();
      }
      return { planes, parts };
    });
    // Only now: a plane that is found here counts as cleared by the next call.
    this.#planes = prepared.planes;
    this.#step = prepared.parts;
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
  async read(tokenCount: number, tokens: number): Promise<Float32Array<ArrayBuffer>> {
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
    this.#kept ??= this.#allocateList(this.#capacity);
    const list = this.#kept;
    writeRange(this.#cache.device, list, kept);
    const batch = new Batch(this.#cache.device, 'keep attention sums');
    let spare = this.#spare;
    const planes = this.#planes.map(({ end, sums }) => {
      this.#recordKeep(batch, list, sums, spare, kept.length);
      const moved = { end, sums: spare };
      spare = sums;
      return moved;
    });
    batch.submit();
    this.#planes = planes;
    this.#spare = spare;
    this.#step = [];
  }

  /**
   * A record of its own with the same sums, for a fork of the sequence; the caller disposes it.
   * @throws VramError `out-of-memory`, with nothing taken; `disposed`.
   */
  fork(): AttentionRecord {
    this.#assertLive();
    const copy = new AttentionRecord(this.#cache, { queries: this.queries, memory: this.#memory });
    copy.#adopt(this.#copies(this.#capacity), this.#capacity);
    return copy;
  }

  #grow(tokens: number): void {
    const { blockCount, blockSize } = this.#cache.layout;
    const most = Math.min(2 * this.#capacity, blockCount * blockSize, this.#bindableTokens());
    const capacity = Math.ceil(Math.max(tokens, most) / CAPACITY_STEP) * CAPACITY_STEP;
    const copies = this.#copies(capacity);
    for (const allocation of this.#allocations()) this.#memory.free(allocation);
    this.#adopt(copies, capacity);
  }

  #adopt({ planes, kept }: { planes: Plane[]; kept: Allocation }, capacity: number): void {
    this.#planes = planes;
    this.#kept = kept;
    this.#spare = undefined;
    this.#capacity = capacity;
    this.#step = [];
  }

  /** Copies of all sums, and a list of kept tokens, at a capacity; all or nothing. */
  #copies(capacity: number): { planes: Plane[]; kept: Allocation } {
    return this.#allOrNothing((take) => {
      const planes = this.#planes.map(({ end }) => ({ end, sums: take(this.#allocate(capacity)) }));
      const kept = take(this.#allocateList(capacity));
      if (planes.length === 0) return { planes, kept };
      const count = this.#capacity;
      const { device } = this.#cache;
      writeRange(
        device,
        kept,
        Uint32Array.from({ length: count }, (_, i) => i),
      );
      const batch = new Batch(device, 'copy attention sums');
      planes.forEach(({ sums }, index) => {
        const source = this.#planes[index]?.sums ?? sums;
        this.#recordKeep(batch, kept, source, sums, count);
      });
      batch.submit();
      return { planes, kept };
    });
  }

  /** Runs `body`, and frees what it took where it fails. */
  #allOrNothing<T>(body: (take: (allocation: Allocation) => Allocation) => T): T {
    const taken: Allocation[] = [];
    try {
      return body((allocation) => {
        taken.push(allocation);
        return allocation;
      });
    } catch (error) {
      for (const allocation of taken) this.#memory.free(allocation);
      throw error;
    }
  }

  /** Moves `kept[0 .. count - 1]` of the source to the front of the target, by whole layers. */
  #recordKeep(
    batch: Batch,
    kept: BufferRange,
    source: Allocation,
    target: Allocation,
    count: number,
  ): void {
    const { layers, kvHeads: width } = this.#cache.layout;
    const [sourceBytes, targetBytes] = [source.sizeBytes / layers, target.sizeBytes / layers];
    const { maxStorageBufferBindingSize } = this.#cache.device.limits;
    const most = Math.floor(maxStorageBufferBindingSize / Math.max(sourceBytes, targetBytes));
    for (let first = 0; first < layers; first += most) {
      const part = Math.min(most, layers - first);
      batch.dispatch(keepSumsKernel, {
        params: {},
        bindings: {
          kept,
          source: subrange(source, first * sourceBytes, part * sourceBytes),
          kept_sums: subrange(target, first * targetBytes, part * targetBytes),
        },
        uniforms: {
          count,
          layers: part,
          sourceTokens: sourceBytes / 4 / width,
          targetTokens: targetBytes / 4 / width,
          width,
        },
        workgroups: Math.ceil((part * targetBytes) / 4 / KEEP_LANES),
      });
    }
  }

  #layer(sums: Allocation, layer: number): BufferRange {
    const bytes = sums.sizeBytes / this.#cache.layout.layers;
    return subrange(sums, layer * bytes, bytes);
  }

  /** Tokens whose sums of one layer fit one binding. */
  #bindableTokens(): number {
    const { maxStorageBufferBindingSize } = this.#cache.device.limits;
    const stepBytes = CAPACITY_STEP * this.#cache.layout.kvHeads * 4;
    return Math.floor(maxStorageBufferBindingSize / stepBytes) * CAPACITY_STEP;
  }

  #allocate(capacity: number): Allocation {
    const { layers, kvHeads } = this.#cache.layout;
    const most = this.#bindableTokens();
    if (capacity > most) {
      fail('unsupported', `sums of ${capacity} tokens, one binding holds ${most}; evict sooner`, {
        capacity,
        most,
      });
    }
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

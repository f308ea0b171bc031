/**
 * Serves many requests at once from one model and one paged KV cache: continuous batching with a
 * prefix cache.
 *
 * A loop runs while there is work: plan a step ({@link Scheduler}), record it as one forward pass
 * over the rows of all its requests, read back one token each, hand them out. Requests come and go
 * between steps. Every row goes through the same kernels as a lone request's would, so that who
 * else is in the batch changes no more of a result than the order of sums in a product of several
 * rows does.
 *
 * When a step fails, the blocks that it should have filled are taken out of the prefix cache, its
 * requests end with the error, and the others go on; a lost device ends all.
 */
import {
  assertArgument,
  Batch,
  checkInteger,
  fail,
  isVramError,
  subrange,
  throwIfAborted,
  VramError,
  type VramDevice,
} from '@vramkit/core';
import { BlockPool, KvCacheManager, type CacheMetrics } from '@vramkit/block-allocator';
import { createPagedKvCache, type PagedKvCache } from '@vramkit/paged-attention';
import { ForwardPass } from '../forward.js';
import {
  PrefixStore,
  type KvStoreOptions,
  type PrefixStoreMetrics,
} from '../kv-store/prefix-store.js';
import type { LanguageModel } from '../weights.js';
import { PendingGeneration, type Generation, type GenerationOptions } from './generation.js';
import { Scheduler, type ScheduledPart, type StepPlan } from './scheduler.js';

/** Options of {@link createBatchEngine}. */
export interface BatchEngineOptions {
  /** Tokens that all requests and the prefix cache together can hold; rounded up to blocks. */
  readonly kvTokens: number;
  /** Tokens per block. Default: 16. */
  readonly blockSize?: number;
  /** Element type of K and V. Default: 'f16'. */
  readonly kvDtype?: 'f32' | 'f16';
  /** Most requests in one step. Default: 32. */
  readonly maxSequences?: number;
  /** Most tokens of one step, prompts and decodes together. Default: 128. */
  readonly chunkTokens?: number;
  /** Most requests that wait. Default: 256. */
  readonly maxWaiting?: number;
  /** Whether requests share the K and V of equal prefixes. Default: true. */
  readonly prefixCaching?: boolean;
  /** Where prefixes outlive their eviction and the process. Default: nowhere. */
  readonly kvStore?: KvStoreOptions | undefined;
}

/** Counts since the engine was made; plain data. */
export interface EngineMetrics extends CacheMetrics, PrefixStoreMetrics {
  readonly running: number;
  readonly waiting: number;
  /** Forward passes. */
  readonly steps: number;
  /** Prompt tokens computed for the first time: what prefix hits reduce. */
  readonly prefillTokens: number;
  /** Tokens computed again after a preemption. */
  readonly recomputedTokens: number;
  /** Tokens given to callers. */
  readonly generatedTokens: number;
  /** Blocks that can be had. */
  readonly totalBlocks: number;
}

type Part = ScheduledPart<PendingGeneration>;

const NOTHING_STORED = { restoredTokens: 0, storedBlocks: 0, storeFailures: 0 };

/** See {@link createBatchEngine}. */
export class BatchEngine {
  readonly device: VramDevice;
  readonly model: LanguageModel;
  readonly manager: KvCacheManager;
  /** Most requests that wait. */
  readonly maxWaiting: number;
  readonly #cache: PagedKvCache;
  readonly #forward: ForwardPass;
  readonly #scheduler: Scheduler<PendingGeneration>;
  readonly #prefixes: PrefixStore | undefined;
  readonly #cancelled = new Set<PendingGeneration>();
  readonly #counts = { steps: 0, prefillTokens: 0, recomputedTokens: 0, generatedTokens: 0 };
  #loop: Promise<void> | undefined;
  #closed = false;

  /** Use {@link createBatchEngine}. */
  constructor(
    device: VramDevice,
    model: LanguageModel,
    parts: {
      readonly cache: PagedKvCache;
      readonly forward: ForwardPass;
      readonly manager: KvCacheManager;
      readonly scheduler: Scheduler<PendingGeneration>;
      readonly prefixes: PrefixStore | undefined;
      readonly maxWaiting: number;
    },
  ) {
    this.device = device;
    this.model = model;
    this.manager = parts.manager;
    this.#cache = parts.cache;
    this.#forward = parts.forward;
    this.#scheduler = parts.scheduler;
    this.#prefixes = parts.prefixes;
    this.maxWaiting = parts.maxWaiting;
  }

  /**
   * Queues a request. Its tokens come from the result; leaving its iteration early cancels it.
   * @throws VramError `invalid-argument` for an empty prompt, an unknown id or an option out of
   * range; `context-exceeded` where prompt and `maxTokens` exceed the model's context;
   * `out-of-memory` where they exceed the whole cache, or, retryable, where too many requests wait;
   * `aborted`; `disposed`.
   */
  submit(prompt: Uint32Array, options: GenerationOptions): Generation {
    if (this.#closed) fail('disposed', 'the engine was closed');
    throwIfAborted(options.signal);
    this.#checkRequest(prompt, options);
    const generation: PendingGeneration = new PendingGeneration(prompt, options, {
      stopIds: options.stopIds ?? this.model.config.stopIds,
      onCancel: () => this.#cancel(generation),
    });
    if (this.#prefixes === undefined) this.#enqueue(generation);
    else void this.#restore(generation, this.#prefixes);
    generation.follow(options.signal);
    return generation;
  }

  #enqueue(generation: PendingGeneration): void {
    this.#scheduler.add(generation);
    this.#loop ??= this.#run();
  }

  /** Queues a request once its prefix is here; one that cannot be queued any more ends so. */
  async #restore(generation: PendingGeneration, prefixes: PrefixStore): Promise<void> {
    await prefixes.load(generation.tokens, generation.namespace);
    try {
      if (this.#closed) fail('disposed', 'the engine was closed');
      if (generation.finishReason === undefined) this.#enqueue(generation);
    } catch (error) {
      generation.fail(error);
    }
  }

  #checkRequest(prompt: Uint32Array, { maxTokens }: GenerationOptions): void {
    const { contextLength, vocabularySize } = this.model.config;
    checkInteger('maxTokens', maxTokens);
    assertArgument(prompt.length > 0, 'the prompt is empty');
    for (const id of prompt) checkInteger('token id', id, 0, vocabularySize - 1);
    const tokens = prompt.length + maxTokens;
    if (tokens > contextLength) {
      fail(
        'context-exceeded',
        `${prompt.length} + ${maxTokens} tokens exceed the model's context of ${contextLength}`,
        { promptTokens: prompt.length, maxTokens, contextLength },
      );
    }
    const { capacityTokens } = this;
    if (tokens <= capacityTokens) return;
    fail('out-of-memory', `${tokens} tokens exceed a KV cache of ${capacityTokens}`, {
      kind: 'kv',
      tokens,
      capacityTokens,
    });
  }

  /** Tokens that the KV cache can hold. */
  get capacityTokens(): number {
    const { blockCount, blockSize } = this.manager.pool;
    return (blockCount - 1) * blockSize;
  }

  #cancel(generation: PendingGeneration): void {
    generation.finish('cancelled');
    this.#cancelled.add(generation);
  }

  async #run(): Promise<void> {
    // Requests of one turn of the event loop begin together.
    await Promise.resolve();
    for (;;) {
      for (const generation of this.#cancelled) this.#scheduler.remove(generation);
      this.#cancelled.clear();
      let plan: StepPlan<PendingGeneration> | undefined;
      try {
        plan = this.#scheduler.plan();
        if (plan === undefined) break;
        await this.#step(plan);
      } catch (error) {
        // Blocks that are being stored come back.
        const isShort = plan === undefined && isVramError(error, 'out-of-memory');
        if (isShort && this.#prefixes?.isMoving === true) await this.#prefixes.settle();
        else this.#abandon(plan, error);
      }
    }
    this.#loop = undefined;
  }

  /** Ends the requests of a failed step, or all where the device is gone. */
  #abandon(plan: StepPlan<PendingGeneration> | undefined, error: unknown): void {
    const isLost = isVramError(error, 'device-lost') || isVramError(error, 'disposed');
    const all = this.#scheduler.requests;
    // Without a plan it is the first waiting request that cannot run.
    const ended = isLost ? all : (plan?.parts.map(({ request }) => request) ?? all.slice(0, 1));
    for (const { sequence, contextLength } of plan?.parts ?? []) {
      const table = this.manager.table(sequence);
      this.manager.invalidate(table.blocks.subarray(Math.floor(contextLength / table.blockSize)));
    }
    for (const generation of ended) {
      this.#scheduler.remove(generation);
      generation.fail(error);
    }
    if (isLost) this.#closed = true;
  }

  async #step({ parts, mapping }: StepPlan<PendingGeneration>): Promise<void> {
    const { workspace } = this.#forward;
    const ids = new Uint32Array(mapping.length);
    let row = 0;
    for (const { request, contextLength, count } of parts) {
      ids.set(request.tokens.subarray(contextLength, contextLength + count), row);
      row += count;
    }
    const batch = new Batch(this.device, 'step');
    this.#cache.copyBlocks(batch, mapping.copies);
    await this.#forward.run(batch, {
      ids,
      positions: mapping.positions,
      slots: mapping.slots,
      sequences: parts.map(({ sequence, count, contextLength }) => ({
        tokens: count,
        contextLength,
        blocks: this.manager.table(sequence).blocks,
      })),
    });
    const complete = parts.filter(({ isComplete }) => isComplete);
    this.#recordLogits(batch, parts);
    if (complete.length > 0) this.#forward.argmax(batch, complete.length);
    batch.submit();
    this.#count(parts);
    if (complete.length === 0) return this.device.settle();
    // Together, so that one that fails leaves none behind that nobody waits for.
    const [chosen, ...logits] = await Promise.all([
      this.device.readback.read(subrange(workspace.ids, 0, complete.length * 4)),
      ...complete.map(({ request }, row) => this.#readLogits(request, row)),
    ]);
    const greedy = new Uint32Array(chosen.buffer);
    for (const [index, { request, sequence }] of complete.entries()) {
      const own = logits[index];
      // A caller may have left while the step ran.
      if (request.finishReason !== undefined) continue;
      const token = own === undefined ? (greedy[index] ?? 0) : request.sampler.sample(own);
      const given = request.generatedTokens;
      if (request.accept(token)) {
        // Before its blocks are free, so that none is evicted before it is stored.
        const held = request.tokens.subarray(0, this.manager.committedTokens(sequence));
        const { blocks } = this.manager.table(sequence);
        this.#prefixes?.store(held, blocks, request.namespace);
        this.#scheduler.remove(request);
      }
      this.#counts.generatedTokens += request.generatedTokens - given;
    }
  }

  /** Logits of each complete request's last row, neighbouring rows at once. */
  #recordLogits(batch: Batch, parts: readonly Part[]): void {
    let row = 0;
    let into = 0;
    let run = 0;
    for (const { count, isComplete } of parts) {
      row += count;
      if (run > 0 && (count > 1 || !isComplete)) {
        this.#forward.logits(batch, row - count - run, run, into - run);
        run = 0;
      }
      if (!isComplete) continue;
      into += 1;
      run += 1;
    }
    if (run > 0) this.#forward.logits(batch, row - run, run, into - run);
  }

  async #readLogits(request: PendingGeneration, row: number): Promise<Float32Array | undefined> {
    if (request.sampler.isGreedy) return undefined;
    const bytes = this.model.config.vocabularySize * 4;
    const { logits } = this.#forward.workspace;
    const read = await this.device.readback.read(subrange(logits, row * bytes, bytes));
    return new Float32Array(read.buffer);
  }

  #count(parts: readonly Part[]): void {
    const counts = this.#counts;
    counts.steps += 1;
    for (const { request, contextLength, count } of parts) {
      if (!request.hasRun) request.cachedTokens = contextLength;
      request.hasRun = true;
      const end = contextLength + count;
      const first = Math.min(end, Math.max(contextLength, request.computedTokens));
      counts.recomputedTokens += first - contextLength;
      counts.prefillTokens += Math.max(0, Math.min(end, request.promptTokens) - first);
      request.computedTokens = Math.max(request.computedTokens, end);
    }
  }

  /** Counts so far; a snapshot. */
  metrics(): EngineMetrics {
    return {
      ...this.manager.metrics(),
      ...this.#counts,
      ...(this.#prefixes?.metrics() ?? NOTHING_STORED),
      running: this.#scheduler.runningCount,
      waiting: this.#scheduler.waitingCount,
      totalBlocks: this.manager.pool.blockCount - 1,
    };
  }

  /**
   * Ends all requests with `disposed`, waits for the step and for the stores in flight, and frees
   * cache and activations. Idempotent.
   */
  async dispose(): Promise<void> {
    this.#closed = true;
    for (const generation of this.#scheduler.requests) {
      if (generation.finishReason !== undefined) continue;
      this.#cancelled.add(generation);
      generation.fail(new VramError('disposed', 'the engine was closed'));
    }
    await this.#loop;
    await this.#prefixes?.settle();
    this.#forward.dispose();
    this.#cache.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/**
 * Allocates an engine's cache and activations; the caller disposes it. The model stays the
 * caller's.
 * @throws VramError `out-of-memory` naming kind and shortfall; nothing stays allocated then.
 */
export function createBatchEngine(
  device: VramDevice,
  model: LanguageModel,
  options: BatchEngineOptions,
): BatchEngine {
  const { config } = model;
  const maxSequences = checkInteger('maxSequences', options.maxSequences ?? 32, 1, 1024);
  const maxTokens = Math.max(
    maxSequences,
    checkInteger('chunkTokens', options.chunkTokens ?? 128, 1),
  );
  const blockSize = checkInteger('blockSize', options.blockSize ?? 16, 1, 1024);
  const kvTokens = checkInteger('kvTokens', options.kvTokens, 1);
  // One more for the null block, which no sequence gets.
  const blockCount = Math.ceil(kvTokens / blockSize) + 1;
  const manager = new KvCacheManager(new BlockPool({ blockCount, blockSize }), {
    isCaching: options.prefixCaching ?? true,
    // A store moves prefixes that have no block yet.
    nodeCapacity: 2 * blockCount,
  });
  const maxWaiting = options.maxWaiting ?? 256;
  const scheduler = new Scheduler<PendingGeneration>(manager, {
    maxTokens,
    maxSequences,
    maxWaiting,
  });
  const cache = createPagedKvCache(device, {
    layers: config.layers,
    kvHeads: config.kvHeads,
    headDim: config.headDim,
    blockCount,
    blockSize,
    dtype: options.kvDtype ?? 'f16',
    reserve: { heads: config.heads, sequences: maxSequences },
  });
  try {
    const longest = Math.min(config.contextLength, blockCount * blockSize);
    const maxBlocks = Math.ceil(longest / blockSize);
    const sizes = { maxTokens, maxLogitRows: maxSequences, maxBlocks, maxSequences };
    const { kvStore } = options;
    const prefixes = kvStore === undefined ? undefined : new PrefixStore(kvStore, manager, cache);
    const forward = new ForwardPass(device, model, cache, sizes);
    const parts = { cache, forward, manager, scheduler, prefixes, maxWaiting };
    return new BatchEngine(device, model, parts);
  } catch (error) {
    cache.dispose();
    throw error;
  }
}

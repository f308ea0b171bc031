/**
 * A session: one model, one paged KV cache, and any number of sequences in it.
 *
 * The allocator decides which blocks a sequence holds, the policy of a sequence decides what it
 * drops, the cache moves the bytes, the forward pass computes; the session calls them in an order
 * in which a failed call leaves the sequences as they were. It is not re-entrant: the activations
 * are shared, so one call at a time runs.
 */
import {
  Batch,
  checkInteger,
  fail,
  subrange,
  throwIfAborted,
  type VramDevice,
} from '@vramkit/core';
import { BlockPool, KvSequences, type BlockCopy, type SlotMapping } from '@vramkit/block-allocator';
import type { KvPolicy } from '@vramkit/eviction';
import { createPagedKvCache, type PagedKvCache } from '@vramkit/paged-attention';
import { KvEviction } from './kv-eviction.js';
import { ForwardPass } from './forward.js';
import type { StepInput } from './step-input.js';
import type { LanguageModel } from './weights.js';

/** Options of {@link createSession}. */
export interface SessionOptions {
  /** Tokens that all sequences together can hold; rounded up to blocks. */
  readonly kvTokens: number;
  /** Tokens per block. Default: 16. */
  readonly blockSize?: number;
  /** Element type of K and V. Default: 'f16'. */
  readonly kvDtype?: 'f32' | 'f16';
  /** Most tokens of one prefill step. Default: 128. More is faster and takes more activations. */
  readonly chunkTokens?: number;
  /** Most rows of logits computed at once. Default: 32. */
  readonly maxLogitRows?: number;
}

/** Options of long calls. */
export interface RunOptions {
  /** Stops before the next step; the sequence keeps what was done, up to whole steps. */
  readonly signal?: AbortSignal;
  /** Called after each step with tokens done and tokens in all. */
  readonly onProgress?: (doneTokens: number, totalTokens: number) => void;
}

/** One sequence of a session. */
export interface Sequence {
  /** Handle at the allocator. */
  readonly id: number;
  /** What it drops and when. */
  readonly eviction: KvEviction;
  /** Logits after the last prefilled token, [vocabulary]; absent before the first prefill. */
  lastLogits: Float32Array | undefined;
}

/** See {@link createSession}. */
export class InferenceSession {
  readonly device: VramDevice;
  readonly model: LanguageModel;
  readonly cache: PagedKvCache;
  readonly sequences: KvSequences;
  readonly forward: ForwardPass;
  readonly chunkTokens: number;
  readonly maxLogitRows: number;

  /** Use {@link createSession}. */
  constructor(
    device: VramDevice,
    model: LanguageModel,
    parts: { cache: PagedKvCache; sequences: KvSequences; forward: ForwardPass },
  ) {
    this.device = device;
    this.model = model;
    this.cache = parts.cache;
    this.sequences = parts.sequences;
    this.forward = parts.forward;
    this.chunkTokens = parts.forward.workspace.sizes.maxTokens;
    this.maxLogitRows = parts.forward.workspace.sizes.maxLogitRows;
  }

  /**
   * A new, empty sequence under `policy`.
   * @param forks Policies that forks of it will be under: what they need is measured from the
   * start.
   * @throws VramError `unsupported` or `invalid-argument` where policy and cache do not fit.
   */
  create(policy: KvPolicy, forks: readonly KvPolicy[] = []): Sequence {
    const id = this.sequences.create();
    try {
      const eviction = KvEviction.create(this, id, policy, forks);
      return { id, eviction, lastLogits: undefined };
    } catch (error) {
      this.sequences.free(id);
      throw error;
    }
  }

  /**
   * A new sequence with the same tokens, under its own policy: full blocks are shared, and the
   * policy drops what is beyond its budget from the new sequence only.
   * @throws VramError `out-of-memory` where the pool has too few blocks, `unsupported` where the
   * policy needs what was not measured; nothing has changed then.
   */
  async fork(sequence: Sequence, policy: KvPolicy): Promise<Sequence> {
    const { sequence: id, copies } = this.sequences.fork(sequence.id);
    let eviction: KvEviction | undefined;
    try {
      this.#copy(copies);
      eviction = await sequence.eviction.fork(id, policy);
      await eviction.afterPrefill();
      return { id, eviction, lastLogits: sequence.lastLogits };
    } catch (error) {
      eviction?.dispose();
      this.sequences.free(id);
      throw error;
    }
  }

  /** Ends a sequence; its blocks go back to the pool. */
  free(sequence: Sequence): void {
    this.sequences.free(sequence.id);
    sequence.eviction.dispose();
  }

  /** Bytes of K, V and norms that the blocks of a sequence hold. */
  kvBytes(sequence: Sequence): number {
    return this.sequences.table(sequence.id).blockCount * this.cache.bytesPerBlock;
  }

  /**
   * Runs `ids` through the model behind what the sequence holds, and keeps the logits of the last.
   * @throws VramError `context-exceeded`; `out-of-memory` where the pool is exhausted; `aborted`;
   * `device-lost`.
   */
  async prefill(sequence: Sequence, ids: Uint32Array, options: RunOptions = {}): Promise<void> {
    this.checkContext(sequence, ids.length);
    if (ids.length === 0) return;
    const promptEnd = this.sequences.table(sequence.id).tokenCount + ids.length;
    for (let done = 0; done < ids.length;) {
      throwIfAborted(options.signal);
      const chunk = ids.subarray(done, done + this.chunkTokens);
      const batch = new Batch(this.device, 'prefill');
      await this.runStep(batch, sequence, chunk, promptEnd);
      done += chunk.length;
      if (done === ids.length) this.forward.logits(batch, chunk.length - 1, 1);
      batch.submit();
      // Waiting bounds the work in flight and gives progress and abort a place to act.
      await this.device.settle();
      options.onProgress?.(done, ids.length);
    }
    sequence.lastLogits = await this.readLogits();
    await sequence.eviction.afterPrefill();
  }

  /**
   * Records one step of `ids` into `batch`: blocks are allocated at once, so submit the batch.
   * @param promptEnd Tokens after the prompt that the step is part of. Default: no prompt.
   * @param observe Called behind the attention of each layer.
   * @throws VramError `out-of-memory` where the pool is exhausted; nothing has changed then.
   * `unsupported` where layers are streamed; see {@link InferenceSession.runStep}.
   */
  recordStep(
    batch: Batch,
    sequence: Sequence,
    ids: Uint32Array | 'device',
    promptEnd?: number,
    observe?: (batch: Batch, layer: number) => void,
  ): void {
    const input = this.#appendStep(sequence, ids, promptEnd);
    this.forward.step(batch, observe === undefined ? input : { ...input, observe });
  }

  /**
   * Records one step as `recordStep()` does, and where layers are streamed submits parts of it and
   * resolves when the rest is recorded; one step at a time then.
   * @throws VramError `out-of-memory` where the pool is exhausted; nothing has changed then.
   */
  runStep(
    batch: Batch,
    sequence: Sequence,
    ids: Uint32Array | 'device',
    promptEnd?: number,
  ): Promise<void> | undefined {
    return this.forward.run(batch, this.#appendStep(sequence, ids, promptEnd));
  }

  #appendStep(sequence: Sequence, ids: Uint32Array | 'device', promptEnd?: number): StepInput {
    const count = ids === 'device' ? 1 : ids.length;
    const table = this.sequences.table(sequence.id);
    const contextLength = table.cachedTokenCount;
    const start = table.tokenCount;
    const mapping: SlotMapping = this.sequences.append(sequence.id, count);
    this.#copy(mapping.copies);
    const { measures } = sequence.eviction;
    const prompt = promptEnd === undefined ? {} : { promptEnd };
    measures.beginStep({ start, count, contextLength, ...prompt });
    return {
      ids,
      positions: mapping.positions,
      slots: mapping.slots,
      sequences: [{ tokens: count, blocks: table.blocks, contextLength, measures }],
    };
  }

  /**
   * The logits that the next token is drawn from; they are given once.
   * @throws VramError `invalid-argument` where nothing was prefilled since the last generation.
   */
  takeLastLogits(sequence: Sequence): Float32Array {
    const logits = sequence.lastLogits;
    if (logits === undefined) fail('invalid-argument', 'prefill the sequence before it generates');
    sequence.lastLogits = undefined;
    return logits;
  }

  /** The first row of logits of the last step. */
  async readLogits(): Promise<Float32Array> {
    const { logits } = this.forward.workspace;
    const bytes = await this.device.readback.read(
      subrange(logits, 0, this.model.config.vocabularySize * 4),
    );
    return new Float32Array(bytes.buffer);
  }

  /**
   * @throws VramError `context-exceeded` where `count` more tokens do not fit the model's context.
   */
  checkContext(sequence: Sequence, count: number): void {
    const { contextLength } = this.model.config;
    const { tokenCount } = this.sequences.table(sequence.id);
    if (tokenCount + count <= contextLength) return;
    fail(
      'context-exceeded',
      `${tokenCount} + ${count} tokens exceed the model's context of ${contextLength}; ` +
        'shorten the prompt',
      { tokenCount, count, contextLength },
    );
  }

  #copy(copies: readonly BlockCopy[]): void {
    if (copies.length === 0) return;
    const batch = new Batch(this.device, 'copy blocks');
    this.cache.copyBlocks(batch, copies);
    batch.submit();
  }

  /** Frees cache and activations; the model stays. Idempotent. */
  dispose(): void {
    this.forward.dispose();
    this.cache.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Allocates a session's cache and activations.
 * @throws VramError `out-of-memory` naming kind and shortfall; nothing stays allocated then.
 */
export function createSession(
  device: VramDevice,
  model: LanguageModel,
  options: SessionOptions,
): InferenceSession {
  const { config } = model;
  const blockSize = checkInteger('blockSize', options.blockSize ?? 16, 1, 1024);
  const kvTokens = checkInteger('kvTokens', options.kvTokens, 1);
  // One more for the null block, which no sequence gets.
  const blockCount = Math.ceil(kvTokens / blockSize) + 1;
  const cache = createPagedKvCache(device, {
    layers: config.layers,
    kvHeads: config.kvHeads,
    headDim: config.headDim,
    blockCount,
    blockSize,
    dtype: options.kvDtype ?? 'f16',
    reserve: { heads: config.heads, sequences: 1 },
  });
  try {
    const maxTokens = checkInteger('chunkTokens', options.chunkTokens ?? 128, 1);
    const maxLogitRows = Math.min(maxTokens, options.maxLogitRows ?? 32);
    const sizes = { maxTokens, maxLogitRows, maxBlocks: blockCount, maxSequences: 1 };
    const forward = new ForwardPass(device, model, cache, sizes);
    const sequences = new KvSequences(new BlockPool({ blockCount, blockSize }));
    return new InferenceSession(device, model, { cache, sequences, forward });
  } catch (error) {
    cache.dispose();
    throw error;
  }
}
